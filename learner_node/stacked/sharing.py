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
    """Which stored row each row of one block is, and back."""

    def __init__(self, block: Block, labels: Sequence[Label], start: int, like: Tensor) -> None:
        found = [label for label in dict.fromkeys(labels) if label is not None]
        place = {label: i for i, label in enumerate(found)}
        self.users = block
        self.stored = Block(start, len(found), block.width)
        self.owners = [network for network, _ in found]
        """The network of each stored row."""
        self.source = torch.tensor([-1 if label is None else place[label] for label in labels], device=like.device)
        """The stored row of each user's row; -1 = none."""
        self.zeros = (self.source < 0).nonzero().flatten()
        """The users' rows that are none."""
        uses: list[list[int]] = [[] for _ in found]
        for row, label in enumerate(labels):
            if label is not None:
                uses[place[label]].append(row)
        self.most = max(map(len, uses))
        """How many users' rows a stored row is at most."""
        slots = [own[k] if k < len(own) else own[0] for k in range(self.most) for own in uses]
        self.uses = torch.tensor(slots, device=like.device)
        """Those rows `[most * stored rows]`: the first of each stored row, the second of each, ..."""
        counts = torch.tensor([len(own) for own in uses])
        used = (torch.arange(self.most)[:, None] < counts)[:, :, None].to(like)
        self.used = None if bool(used.all()) else used
        """0.0 where a stored row has fewer `[most, stored rows, 1]`; None = nowhere."""


class Expansion:
    """Lays stored numbers out for their users, from one buffer into another."""

    def __init__(self, blocks: Sequence[_Rows], stored: Tensor, users: Tensor) -> None:
        self._blocks = [
            (rows.stored.of(stored), rows.source.clamp(min=0), rows.zeros, rows.users.of(users)) for rows in blocks
        ]

    def __call__(self) -> None:
        """Writes the users' buffer."""
        for stored, source, zeros, users in self._blocks:
            torch.index_select(stored, 0, source, out=users)
            if len(zeros):
                users.index_fill_(0, zeros, 0.0)


class Reduction:
    """Sums users' gradients into those of the stored numbers, from one buffer into another."""

    def __init__(self, blocks: Sequence[_Rows], users: Tensor, stored: Tensor) -> None:
        self._blocks = [
            (rows, rows.users.of(users), users.new_empty(len(rows.uses), rows.users.width), rows.stored.of(stored))
            for rows in blocks
        ]

    def __call__(self) -> None:
        """Writes the stored numbers' buffer."""
        for rows, users, summands, stored in self._blocks:
            torch.index_select(users, 0, rows.uses, out=summands)
            by_use = summands.view(rows.most, *stored.shape)
            torch.sum(by_use if rows.used is None else by_use.mul_(rows.used), 0, out=stored)


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

    def expansion(self, stored: Tensor, users: Tensor) -> Expansion:
        """Returns what lays `stored` `[P]` out for users; where both are the same tensor it does nothing."""
        return Expansion([] if stored is users else self._blocks, stored, users)

    def reduction(self, users: Tensor, stored: Tensor) -> Reduction:
        """Returns what sums `users`, as laid out, into `stored` `[P]`; for one tensor it does nothing."""
        return Reduction([] if stored is users else self._blocks, users, stored)

    def places(self) -> Tensor:
        """Returns where in the stored buffer each number of the users' buffer stands; -1 = nowhere."""
        found = torch.empty(self.users_size, dtype=torch.int64)
        for rows in self._blocks:
            source = rows.source.cpu()[:, None]
            own = rows.users.of(found)
            # In place: there are as many numbers as parameters of all users, and each takes eight bytes.
            torch.add(rows.stored.start + source * rows.stored.width, torch.arange(rows.stored.width), out=own)
            own[rows.zeros.cpu()] = -1
        return found

    def first_uses(self) -> Tensor:
        """Returns where in the users' buffer each number of the stored buffer stands first."""
        found = torch.empty(self.stored_size, dtype=torch.int64)
        for rows in self._blocks:
            first = rows.uses[: rows.stored.rows].cpu()[:, None]
            own = rows.stored.of(found)
            torch.add(rows.users.start + first * rows.users.width, torch.arange(rows.users.width), out=own)
        return found
