"""Sample info: which records of the replay server a batch consists of, so that their TD errors can be returned.

Where sampling follows priorities, a Batch message carries one SampleInfo entry a record behind its records. A
Priorities message returns the same entries with the TD errors as values. The name is Reverb's.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

SAMPLE_INFO = np.dtype(
    [
        ("slot", "<u4"),
        # Distinguishes the record from earlier and later records in the same slot.
        ("generation", "<u4"),
        # From the replay: N p, the record's probability in units of a uniform draw. To the replay: abs(TD error).
        ("value", "<f4"),
    ]
)
"""One entry: the slot of a record in the ring, the generation of that slot, and a value."""
SampleInfo = npt.NDArray[Any]
"""An array `[batch]` of SAMPLE_INFO."""


def with_values(samples: SampleInfo, values: npt.NDArray[np.float32]) -> SampleInfo:
    """Returns a copy of the entries with other values `[batch]`."""
    answer = samples.copy()
    answer["value"] = values
    return answer
