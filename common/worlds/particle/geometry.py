"""Distances and choices over arrays with copies on the last axis, rounded like mpe2.

mpe2 computes distances in two ways that differ in the last bit: the root of a sum of squares, as in `Particles.dist`,
and `np.linalg.norm`, which multiplies and adds inside BLAS, fused if the processor supports it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.worlds.world import Float64Array


def blas_norm(vectors: Float64Array) -> Float64Array:
    """Returns the lengths `[..., copies]` of vectors `[..., 2, copies]`, each as np.linalg.norm computes it."""
    rows = np.ascontiguousarray(np.moveaxis(vectors, -2, -1))
    squares = np.matmul(rows[..., None, :], rows[..., :, None])[..., 0, 0]
    lengths: Float64Array = np.sqrt(squares)
    return lengths


def squared_norm(vectors: Float64Array) -> Float64Array:
    """Returns the squared lengths `[..., copies]` of vectors `[..., 2, copies]`."""
    squares = vectors * vectors
    summed: Float64Array = squares[..., 0, :] + squares[..., 1, :]
    return summed


def mean_over_agents(rows: Float64Array) -> Float64Array:
    """Returns the mean over agents `[copies]` of rows `[agents, copies]`, as np.mean computes it for each copy."""
    # numpy pairs the terms of a sum of eight and more, but only along a contiguous axis.
    means: Float64Array = np.ascontiguousarray(rows.T).mean(axis=-1)
    return means


def pick(rows: NDArray[Any], index: NDArray[np.intp]) -> Any:
    """Returns from rows `[choices, ..., copies]` the choice of each copy by index `[copies]`."""
    chosen = index.reshape((1,) * (rows.ndim - 1) + (-1,))
    return np.take_along_axis(rows, chosen, axis=0)[0]


def nearest(rel: Float64Array, count: int) -> NDArray[np.intp]:
    """Returns the indices `[<= count, copies]` of the `count` nearest positions rel `[n, 2, copies]`, nearest first."""
    if not len(rel):
        return np.zeros((0, rel.shape[-1]), np.intp)
    return np.argsort(np.ascontiguousarray(blas_norm(rel).T), axis=-1)[:, :count].T


def nearest_few(rel: Float64Array, count: int | None) -> Float64Array:
    """Returns the `count` nearest of the positions rel `[n, 2, copies]`, padded with zeros; None returns all."""
    return rel if count is None else in_order(rel, nearest(rel, count), count)


def in_order(rows: Float64Array, order: NDArray[np.intp], count: int | None = None) -> Float64Array:
    """Returns rows `[n, k, copies]` in each copy's order, with zeros in the remaining rows."""
    sorted_rows = np.take_along_axis(rows, order[:, None, :], axis=0)
    if count is None or count == len(sorted_rows):
        return sorted_rows
    padding = np.zeros((count - len(sorted_rows), *rows.shape[1:]))
    return np.concatenate([sorted_rows, padding])
