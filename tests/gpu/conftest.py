"""Tests of a GPU: all are marked `gpu`, and skipped where torch finds no CUDA device."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from learner_node.devices import Device, choose_device

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.gpu)


@pytest.fixture(autouse=True, name="gpu")
def gpu_fixture() -> Device:
    """Returns the GPU."""
    if not torch.cuda.is_available():
        pytest.skip(f"torch {torch.__version__} finds no CUDA device")
    return choose_device(gpu=True)
