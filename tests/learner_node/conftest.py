"""One thread a test process: updates this small are slower on more, and the machine has other tests to run."""

import torch

torch.set_num_threads(1)
