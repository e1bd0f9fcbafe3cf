"""One thread a test process: updates this small are slower on more."""

import torch

torch.set_num_threads(1)
