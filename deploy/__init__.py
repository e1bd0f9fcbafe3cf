"""How Shoal is run: one command on one machine, and what the deployments on many need."""

import os

# Read once, when numpy is loaded: so before any module here imports it. Products of a few hundred rows lose more to
# OpenBLAS' threads waiting for each other than they gain, most of all where every core has a run of its own.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
