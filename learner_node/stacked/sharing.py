"""Parameter sharing: copies a network's parameters to each user of the network, and sums the users' gradients.

A user is a player's policy, or one of its critics. Shared parameters exist once a network, expanded parameters once a
user. The passes read the expanded parameters alone. They do not know which users share a network, which inputs a critic
does not read, or in which order a shared critic reads the joint observation and action. This module labels each row of
the expanded parameters with the shared row that it copies. Without sharing, both are the same memory, and nothing is
copied.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from learner_node.update.optimiser import Block

RowLabel = tuple[int, int] | None
"""Identity of an expanded row: (network, row of the network). None = the row is not a parameter and always zero."""


class _RowMap:
    """For one block: the shared row of each expanded row, and the expanded rows that copy each shared row."""

    def __init__(self, block: Block, labels: Sequence[RowLabel], start: int, like: Tensor) -> None:
        unique = [label for label in dict.fromkeys(labels) if label is not None]
        row_of = {label: i for i, label in enumerate(unique)}
        self.expanded = block
        self.shared = Block(start, len(unique), block.width)
        self.owners = [network for network, _ in unique]
        """The network of each shared row."""
        self.shared_row = torch.tensor([-1 if label is None else row_of[label] for label in labels], device=like.device)
        """The shared row of each expanded row; -1 if it is not a parameter."""
        self.zeros = (self.shared_row < 0).nonzero().flatten()
        """The expanded rows that are not parameters."""
        uses: list[list[int]] = [[] for _ in unique]
        for row, label in enumerate(labels):
            if label is not None:
                uses[row_of[label]].append(row)
        self.max_uses = max(map(len, uses))
        """The largest number of expanded rows that copy one shared row."""
        padded = [copies[k] if k < len(copies) else copies[0] for k in range(self.max_uses) for copies in uses]
        self.uses = torch.tensor(padded, device=like.device)
        """The copies of each shared row `[max_uses * shared rows]`: the first copy of each, the second of each, ..."""
        counts = torch.tensor([len(copies) for copies in uses])
        use_mask = (torch.arange(self.max_uses)[:, None] < counts)[:, :, None].to(like)
        self.use_mask = None if bool(use_mask.all()) else use_mask
        """0.0 where a shared row has fewer copies `[max_uses, shared rows, 1]`; None if all have `max_uses`."""


class Expansion:
    """The copy of the shared parameters to all users, from one buffer into another."""

    def __init__(self, blocks: Sequence[_RowMap], shared: Tensor, expanded: Tensor) -> None:
        self._blocks = [
            (rows.shared.of(shared), rows.shared_row.clamp(min=0), rows.zeros, rows.expanded.of(expanded))
            for rows in blocks
        ]

    def expand(self) -> None:
        """Writes the expanded buffer."""
        for shared, shared_row, zeros, expanded in self._blocks:
            torch.index_select(shared, 0, shared_row, out=expanded)
            if len(zeros):
                expanded.index_fill_(0, zeros, 0.0)


class Reduction:
    """The sum of the users' gradients into the gradient of their network, from one buffer into another."""

    def __init__(self, blocks: Sequence[_RowMap], expanded: Tensor, shared: Tensor) -> None:
        self._blocks = [
            (
                rows,
                rows.expanded.of(expanded),
                expanded.new_empty(len(rows.uses), rows.expanded.width),
                rows.shared.of(shared),
            )
            for rows in blocks
        ]

    def reduce(self) -> None:
        """Writes the shared buffer."""
        for rows, expanded, summands, shared in self._blocks:
            torch.index_select(expanded, 0, rows.uses, out=summands)
            by_use = summands.view(rows.max_uses, *shared.shape)
            torch.sum(by_use if rows.use_mask is None else by_use.mul_(rows.use_mask), 0, out=shared)


class Sharing:
    """The parameter sharing of all networks of one kind."""

    def __init__(self, blocks: Sequence[Block], labels: Sequence[Sequence[RowLabel]], like: Tensor) -> None:
        """labels: one for each row of each block. The blocks cover the expanded buffer without gaps."""
        self._blocks: list[_RowMap] = []
        start = 0
        for block, row_labels in zip(blocks, labels, strict=True):
            self._blocks.append(_RowMap(block, row_labels, start, like))
            start += self._blocks[-1].shared.rows * block.width
        self.shared_size = start
        self.expanded_size = sum(block.rows * block.width for block in blocks)
        self.is_identity = all(
            rows.shared_row.tolist() == list(range(rows.expanded.rows)) and rows.shared.start == rows.expanded.start
            for rows in self._blocks
        )
        """Whether expanded and shared parameters are the same numbers in the same order."""

    @property
    def shared_blocks(self) -> list[tuple[Block, list[int]]]:
        """The blocks of the shared buffer, with the network of each row."""
        return [(rows.shared, rows.owners) for rows in self._blocks]

    def expansion(self, shared: Tensor, expanded: Tensor) -> Expansion:
        """Returns the copy of `shared` `[P]` into `expanded`; it does nothing if both are the same tensor."""
        return Expansion([] if shared is expanded else self._blocks, shared, expanded)

    def reduction(self, expanded: Tensor, shared: Tensor) -> Reduction:
        """Returns the sum of `expanded` into `shared` `[P]`; it does nothing if both are the same tensor."""
        return Reduction([] if shared is expanded else self._blocks, expanded, shared)

    def shared_index(self) -> Tensor:
        """Returns the index in the shared buffer of each number of the expanded buffer; -1 if it is not a parameter."""
        index = torch.empty(self.expanded_size, dtype=torch.int64)
        for rows in self._blocks:
            shared_row = rows.shared_row.cpu()[:, None]
            block_index = rows.expanded.of(index)
            # In place: the index has eight bytes for each parameter of all users.
            torch.add(
                rows.shared.start + shared_row * rows.shared.width, torch.arange(rows.shared.width), out=block_index
            )
            block_index[rows.zeros.cpu()] = -1
        return index

    def first_expanded_index(self) -> Tensor:
        """Returns the index in the expanded buffer of the first use of each number of the shared buffer."""
        index = torch.empty(self.shared_size, dtype=torch.int64)
        for rows in self._blocks:
            first = rows.uses[: rows.shared.rows].cpu()[:, None]
            block_index = rows.shared.of(index)
            torch.add(
                rows.expanded.start + first * rows.expanded.width, torch.arange(rows.expanded.width), out=block_index
            )
        return index
