"""The figures (numbers) of a world's check, stage by stage, as the child process sends them."""

from __future__ import annotations

from typing import Literal

import msgspec

from common.run.spaces import AgentSpaces
from common.run.world_facts import WorldFacts
from common.spec import AgentsSpec
from common.worlds.adapters.first_copy import Fault

Actions = Literal["random", "zero", "lowest", "highest"]
"""How the agents act: at random; with zero, or the first choice; with the lowest or highest value, or last choice."""


class CheckTask(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The world to check, and the time for it."""

    name: str
    options: dict[str, object]
    seconds: float
    """Time for all stages that play [s]."""
    seed: int
    max_episode_steps: int
    sides: dict[str, tuple[str, ...]]
    wants_state: bool = False
    """Whether a world without a global state is a mistake in the settings."""


class StageStarted(msgspec.Struct, frozen=True, tag="began"):
    """A stage starts."""

    stage: str


class AgentsFound(msgspec.Struct, frozen=True, tag="agents"):
    """The agents of the world."""

    agents: AgentsSpec
    spaces: tuple[AgentSpaces, ...]
    made_s: float
    """Time to import and construct one copy [s]."""


class StateFound(msgspec.Struct, frozen=True, tag="state"):
    """The global state of the world."""

    state_dim: int


class Measured(msgspec.Struct, frozen=True, tag="facts"):
    """The measurements from which a preset is chosen, as at the start of a run."""

    facts: WorldFacts


class ContractTest(msgspec.Struct, frozen=True, tag="contract"):
    """One test of the world's contract."""

    test: str
    problem: str = ""
    """The first fault; empty if the test passed."""
    skipped: str = ""
    """Why the test was not made; empty if it was."""


class ObservationColumn(msgspec.Struct, frozen=True):
    """One number of an agent's observation over all steps of random play."""

    low: float
    high: float
    mean: float
    std: float


class PlayFigures(msgspec.Struct, frozen=True, tag="play"):
    """Episodes with one kind of actions."""

    actions: Actions
    steps: int
    seconds: float
    """Time in the world's `step` and `reset` [s]."""
    returns: tuple[float, ...]
    """Return of each finished episode, summed over agents."""
    lengths: tuple[int, ...]
    """Length of each finished episode [steps]."""
    terminated: int
    """Finished episodes in which every agent terminated; the others were cut off by a limit of time."""
    left_early: int
    """Finished episodes in which an agent left before the others."""
    common_reward: bool
    """Whether all agents received equal rewards in every step."""
    reward_size: tuple[float, ...]
    """Root mean square of each agent's rewards that are not 0; 0 if there are none."""
    observations: tuple[tuple[ObservationColumn, ...], ...] = ()
    """The columns of each agent's observation; only of random play."""
    memory_growth: float = 0.0
    """Growth of the process's private memory [bytes a step], after the first tenth of the steps."""
    printed: tuple[str, ...] = ()
    """The first lines that the world printed on the standard output."""
    printed_lines: int = 0


class StepRate(msgspec.Struct, frozen=True, tag="rate"):
    """The speed of a world whose copies step together."""

    copies: int
    steps: int
    """Steps, counted over all copies."""
    seconds: float


class AdapterWarning(msgspec.Struct, frozen=True, tag="warned"):
    """A warning of the adapter, such as an observation that leaves its space."""

    text: str


Message = (
    StageStarted | AgentsFound | StateFound | ContractTest | Measured | PlayFigures | StepRate | AdapterWarning | Fault
)
