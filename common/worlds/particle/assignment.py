"""The cheapest one-to-one assignment of agents to target positions, for many copies at once."""

from __future__ import annotations

from itertools import permutations

import numpy as np
from numpy.typing import NDArray

from common.worlds.particle.scenario import ordered_sum
from common.worlds.world import Float64Array

# Up to 120 permutations, trying all of them is faster than one call of the Hungarian algorithm for every copy.
_TRY_ALL_UP_TO = 5
# Rounding alone may order assignments whose costs are this close, so mpe2's algorithm decides.
_TIE = 1e-9


def assigned_costs(costs: Float64Array) -> Float64Array:
    """Returns each agent's cost in the cheapest assignment, `[agents, copies]`, from costs `[agents, targets, copies]`.

    Equal to scipy's linear_sum_assignment. scipy is imported only for more than five agents, or a tie.
    """
    agents, _, copies = costs.shape
    if agents > _TRY_ALL_UP_TO:
        return _hungarian(costs, np.arange(copies))
    choices = np.array(list(permutations(range(agents))))
    totals = ordered_sum(costs[agent][choices[:, agent]] for agent in range(agents))
    best = totals.argmin(axis=0)
    targets = choices[best].T
    paid = np.take_along_axis(costs, targets[:, None, :], axis=1)[:, 0]
    tied = np.flatnonzero((totals <= totals.min(axis=0) + _TIE).sum(axis=0) > 1)
    if len(tied):
        paid[:, tied] = _hungarian(costs, tied)
    return paid


def _hungarian(costs: Float64Array, copies: NDArray[np.intp]) -> Float64Array:
    """Returns the costs `[agents, len(copies)]`, assigned copy by copy."""
    from scipy.optimize import linear_sum_assignment  # type: ignore[import-untyped]  # noqa: PLC0415  (60 MB, rarely needed)

    paid = np.empty((costs.shape[0], len(copies)))
    for column, copy in enumerate(copies):
        agents, targets = linear_sum_assignment(costs[:, :, copy])
        paid[:, column] = costs[agents, targets, copy]
    return paid
