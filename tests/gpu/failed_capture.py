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

    def work() -> Tensor:
        x.normal_(generator=drawn)
        if float(x.sum()) > 1e9:
            x.zero_()
        return x.clone()

    expected = [torch.zeros(4, device=gpu.torch).normal_(generator=other).cpu() for _ in range(2 * CALLS)]
    found = []
    for _ in range(2):  # two kinds of updates
        graphed = GraphedUpdate(gpu, work, drawn)
        found += [graphed.run().cpu() for _ in range(CALLS)]
    assert torch.cuda.current_stream() == stream
    assert all(torch.equal(one, another) for one, another in zip(found, expected, strict=True))


if __name__ == "__main__":
    main()
