"""Work that no graph captures, because it reads a result on the CPU: it runs directly, with its random numbers."""

from __future__ import annotations

import logging

import torch
from torch import Tensor

from learner_node.devices import GraphedUpdate, choose_device

CALLS = 8


def main() -> None:
    logging.basicConfig()
    gpu = choose_device(gpu=True)
    drawn, other = (torch.Generator(gpu.torch).manual_seed(3) for _ in range(2))
    x, stream = torch.zeros(4, device=gpu.torch), torch.cuda.current_stream()

    def good() -> Tensor:
        x.normal_(generator=drawn)
        return x.clone()

    def bad() -> Tensor:
        x.normal_(generator=drawn)
        return x.clone() if float(x.sum()) < 1e9 else x

    expected = [torch.zeros(4, device=gpu.torch).normal_(generator=other).cpu() for _ in range(3 * CALLS)]
    captured, failing = GraphedUpdate(gpu, good, drawn), GraphedUpdate(gpu, bad, drawn)
    found = [graphed.run().cpu() for graphed in (captured, failing, captured) for _ in range(CALLS)]
    assert captured._captured is not None
    assert gpu.capture_failed
    assert torch.cuda.current_stream() == stream
    assert all(torch.equal(one, another) for one, another in zip(found, expected, strict=True))


if __name__ == "__main__":
    main()
