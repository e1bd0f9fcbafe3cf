"""Named settings to start from, as departures from the defaults by section."""

from __future__ import annotations

from typing import Any

# openai/maddpg's train.py and trainer (discount, rates, batch, one update of 1,024 per 100 steps, warm-up of
# 1,024 episodes of 25 steps, clip 0.5): research values with their sources in docs/algorithms.md.
_PAPER: dict[str, Any] = {
    "algorithm": {
        "policy_learning_rate": 1e-2,
        "critic_learning_rate": 1e-2,
        "final_learning_rate_share": 1.0,
    },
    "exploration": {"scale": 0.3, "final_scale": 0.3},
    "replay": {"batch": 1024, "samples_per_insert": 10.24, "min_size": 25_600},
    "budget": {"steps": 1_500_000},
}

PRESETS: dict[str, dict[str, Any]] = {"fast": {}, "paper": _PAPER}
