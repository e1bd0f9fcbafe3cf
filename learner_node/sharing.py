"""Parameters as they are stored, one set a network, and as they lie for each of its users.

The passes run over users (agents, or critics one or two an agent), every one with its own parameters side by side. Who
shares a network, what a critic does not see, and in which order a shared critic reads the joint vectors is not their
business: it is said here, by naming for each row of the users' parameters the stored row that it is. Where every row
is one of its own, both are the same memory and nothing is copied.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Label = tuple[int, int] | None
"""What a row is: (network, which of its rows); None = no parameter, always zero."""


@dataclass(frozen=True)
class Block:
    """Rows of one length within a flat buffer."""

    start: int
    rows: int
    width: int

    def of(self, flat: Tensor) -> Tensor:
        """Sees the block of a flat buffer as `[rows, width]`."""
        return flat[self.start : self.start + self.rows * self.width].view(self.rows, self.width)


class _Rows:
    """The rows of one block: users' rows out of stored rows, and the sums back."""

    def __init__(self, block: Block, labels: Sequence[Label], start: int, like: Tensor) -> None:
        found = [label for label in dict.fromkeys(labels) if label is not None]
        place = {label: i for i, label in enumerate(found)}
        self.users = block
        self.stored = Block(start, len(found), block.width)
        self.owners = [network for network, _ in found]
        """The network of each stored row."""
        self.source = torch.tensor([-1 if label is None else place[label] for label in labels], device=like.device)
        """The stored row of each user's row."""
        self._zeros = (self.source < 0).nonzero().flatten()
        self._gather = self.source.clamp(min=0)
        uses: list[list[int]] = [[] for _ in found]
        for row, label in enumerate(labels):
            if label is not None:
                uses[place[label]].append(row)
        self._most = max(map(len, uses))
        slots = [own[k] if k < len(own) else own[0] for k in range(self._most) for own in uses]
        self._uses = torch.tensor(slots, device=like.device)
        counts = torch.tensor([len(own) for own in uses])
        used = (torch.arange(self._most)[:, None] < counts)[:, :, None].to(like)
        self._used = None if bool(used.all()) else used
        self._summands = like.new_empty(len(slots), block.width)

    def expand(self, stored: Tensor, into: Tensor) -> None:
        rows = self.users.of(into)
        torch.index_select(self.stored.of(stored), 0, self._gather, out=rows)
        if len(self._zeros):
            rows.index_fill_(0, self._zeros, 0.0)

    def reduce(self, users: Tensor, into: Tensor) -> None:
        torch.index_select(self.users.of(users), 0, self._uses, out=self._summands)
        rows = self._summands.view(self._most, self.stored.rows, self.stored.width)
        torch.sum(rows if self._used is None else rows.mul_(self._used), 0, out=self.stored.of(into))


class Sharing:
    """How users' parameters of one kind come from stored ones."""

    def __init__(self, blocks: Sequence[Block], labels: Sequence[Sequence[Label]], like: Tensor) -> None:
        """Takes a label for each row of each block; blocks cover the users' buffer without gaps."""
        self._blocks: list[_Rows] = []
        start = 0
        for block, own in zip(blocks, labels, strict=True):
            self._blocks.append(_Rows(block, own, start, like))
            start += self._blocks[-1].stored.rows * block.width
        self.stored_size = start
        self.users_size = sum(block.rows * block.width for block in blocks)
        self.is_plain = all(
            rows.source.tolist() == list(range(rows.users.rows)) and rows.stored.start == rows.users.start
            for rows in self._blocks
        )
        """Whether users' and stored parameters are the same numbers in the same places."""

    @property
    def stored_blocks(self) -> list[tuple[Block, list[int]]]:
        """The blocks of the stored buffer, with the network of each row."""
        return [(rows.stored, rows.owners) for rows in self._blocks]

    def expand(self, stored: Tensor, into: Tensor) -> None:
        """Lays stored parameters out for their users."""
        if not self.is_plain:
            for rows in self._blocks:
                rows.expand(stored, into)

    def reduce(self, users: Tensor, into: Tensor) -> None:
        """Sums users' gradients into those of the stored parameters."""
        if not self.is_plain:
            for rows in self._blocks:
                rows.reduce(users, into)

    def places(self) -> Tensor:
        """Returns where in the stored buffer each number of the users' buffer stands; -1 = nowhere."""
        found = torch.empty(self.users_size, dtype=torch.int64)
        for rows in self._blocks:
            source = rows.source.cpu()[:, None]
            stood = rows.stored.start + source * rows.stored.width + torch.arange(rows.stored.width)
            rows.users.of(found).copy_(torch.where(source < 0, -1, stood))
        return found
