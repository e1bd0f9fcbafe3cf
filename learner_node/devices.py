"""The one place that names a device."""

from __future__ import annotations

import torch

from common.errors import ConfigError


def choose_device(*, gpu: bool) -> torch.device:
    """Returns CUDA if asked for, else the CPU; ConfigError when there is no CUDA, with what to do."""
    if not gpu:
        return torch.device("cpu")
    if torch.cuda.is_available():
        return torch.device("cuda")
    built = torch.version.cuda
    why = f"it is built for CUDA {built} but finds no GPU: see nvidia-smi" if built else "install a build with CUDA"
    raise ConfigError(
        f"--gpu: torch {torch.__version__} has no CUDA device; {why}, or leave --gpu out to train on the CPU"
    )
