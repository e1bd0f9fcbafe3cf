"""Tests of `shoal bench learner --gpu`, on the CPU: its rows, and its error without CUDA."""

from __future__ import annotations

import pytest
import torch

from common.errors import ConfigError
from learner_node.devices import choose_device
from learner_node.inspection.device_speed import updates_per_second
from learner_node.trainer import Trainer
from shoal.commands.bench import BenchConfig, BenchRow
from shoal.commands.bench.gpu_learner import Sizes, make_run, rows_on
from shoal.commands.bench.single_process import learner


def test_without_cuda_the_error_names_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=r"has no CUDA device.*or omit --gpu to train on the CPU"):
        next(learner.rows(BenchConfig(gpu=True)))


def test_an_update_that_exceeds_the_memory_has_no_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    run, device = make_run(2, 16, "stacked"), choose_device(gpu=False)
    trainer = Trainer(run, device)

    def exceed(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    assert (updates_per_second(trainer, run, device, 0.01) or 0.0) > 1.0
    monkeypatch.setattr(trainer, "update", exceed)
    assert updates_per_second(trainer, run, device, 0.01) is None


@pytest.mark.system
def test_the_rows_of_a_device() -> None:
    sizes = Sizes(agents=(2,), batches=(32, 64), served=(64,), seconds=0.3)
    rows = [line for line in rows_on(choose_device(gpu=False), sizes) if isinstance(line, BenchRow)]
    assert [row.name for row in rows] == [
        "learner/gpu/2/32/autograd",
        "learner/gpu/2/64/autograd",
        "learner/gpu/2/64/served",
        "learner/gpu/2/64/waiting",
    ]
    *updates, served, waiting = rows
    assert all(row.value > 1 and row.baseline > 1 and row.baseline_name == "stacked" for row in updates)
    # `auto` chooses the engine stacked here, so the updates that ask for batches are its updates.
    assert (served.baseline_name, served.baseline, served.goal) == ("asked by stacked", updates[1].baseline, 1.0)
    assert served.value > 1
    assert 0.0 <= waiting.value <= 100.0
