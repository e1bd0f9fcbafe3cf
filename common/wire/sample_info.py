"""Where a batch's records stand in the replay: what a learner returns with their TD errors.

A Batch that was drawn by priorities carries one place a record after its records, a Priorities message the same places
with other values.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

PLACE = np.dtype(
    [
        ("slot", "<u4"),
        # Tells the record from those that stood in the slot before it, and will after it.
        ("generation", "<u4"),
        # From the replay: how likely it was drawn, in units of a uniform draw (N p). Back to it: its absolute TD error.
        ("value", "<f4"),
    ]
)
Places = npt.NDArray[Any]
"""`[B]` of PLACE."""


def with_values(places: Places, values: npt.NDArray[np.float32]) -> Places:
    """Returns the same places with other values `[B]`."""
    answer = places.copy()
    answer["value"] = values
    return answer
