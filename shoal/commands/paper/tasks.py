"""The experiments of the paper: worlds, variants, measures, and the claims to compare with.

The figures under `published` are those of the paper's appendix as they are commonly quoted; they were not checked
against the paper. The paper does not define some of its measures, so the order of the variants can be compared, but not
the numbers. docs/paper.md compares the published code with Shoal.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

MADDPG, IDDPG = "maddpg", "iddpg"
DDPG = "DDPG"
"""The paper's name of iddpg."""


class TeamVariant(NamedTuple):
    """One line of a table: the algorithm of each side."""

    name: str
    algorithm: str
    """Value of `shoal train --algorithm`."""


class MetricColumn(NamedTuple):
    """One column: a metric of actor_node/evaluation/task_metrics.py, or the difference of two."""

    name: str
    title: str
    minus: str = ""
    """Name of a metric to subtract; empty: none."""
    percent: bool = False


class Claim(NamedTuple):
    """A finding of the paper: one variant is ahead of another."""

    text: str
    measure: str
    """Title of the column to compare."""
    ahead: str
    """Name of the variant that is ahead."""
    behind: str
    """Name of the variant that is behind."""
    more_is_better: bool


class PaperTask(NamedTuple):
    """One experiment, which makes one table."""

    key: str
    title: str
    scenario: str
    world: tuple[str, ...]
    """Settings of the world, as values of `--set`."""
    variants: tuple[TeamVariant, ...]
    measures: tuple[MetricColumn, ...]
    claim: Claim
    published: Mapping[str, str]
    """Figures of the paper by variant name."""
    quick_steps: int
    """Environment steps of a run with --quick."""
    has_physics: bool = True
    """Whether bodies move, so that the original environment differs from mpe2."""


_TEAMS = (TeamVariant("MADDPG", MADDPG), TeamVariant(DDPG, IDDPG))


def _pairings(adversary: str, agent: str) -> tuple[TeamVariant, ...]:
    """Returns the four pairings of a world with two sides; the arguments are the names of the sides."""
    names = {MADDPG: "MADDPG", IDDPG: DDPG}
    return tuple(
        TeamVariant(f"{names[a]} {adversary}, {names[b]} {agent}", f"adversary={a},agent={b}")
        for a in (MADDPG, IDDPG)
        for b in (MADDPG, IDDPG)
    )


def _navigation(agents: int, published: Mapping[str, str], quick_steps: int) -> PaperTask:
    return PaperTask(
        key=f"navigation-{agents}",
        title=f"Cooperative navigation, N = {agents}",
        scenario="simple_spread",
        world=() if agents == 3 else (f"world.N={agents}",),
        variants=_TEAMS,
        measures=(
            MetricColumn("distance", "distance to the landmarks"),
            MetricColumn("collisions", "collisions"),
            MetricColumn("occupied_landmarks", "landmarks occupied at the end"),
        ),
        claim=Claim(
            "MADDPG's agents are nearer to the landmarks than DDPG's.",
            "distance to the landmarks",
            "MADDPG",
            DDPG,
            more_is_better=False,
        ),
        published=published,
        quick_steps=quick_steps,
    )


TASKS: tuple[PaperTask, ...] = (
    PaperTask(
        key="communication",
        title="Cooperative communication",
        scenario="simple_speaker_listener",
        world=(),
        variants=_TEAMS,
        measures=(
            MetricColumn("reached", "target reached", percent=True),
            MetricColumn("near", "nearer than 0.2", percent=True),
            MetricColumn("final_distance", "distance at the end"),
            MetricColumn("distance", "mean distance"),
        ),
        claim=Claim(
            "MADDPG's listener reaches the target far more often than DDPG's.",
            "target reached",
            "MADDPG",
            DDPG,
            more_is_better=True,
        ),
        published={"MADDPG": "84.0 %, distance 0.133", DDPG: "32.0 %, distance 0.456"},
        quick_steps=800_000,
    ),
    _navigation(3, {"MADDPG": "distance 1.767, collisions 0.209", DDPG: "distance 1.858, collisions 0.375"}, 400_000),
    _navigation(6, {"MADDPG": "distance 3.345, collisions 1.366", DDPG: "distance 3.350, collisions 1.585"}, 250_000),
    PaperTask(
        key="predator-prey",
        title="Predator and prey",
        scenario="simple_tag",
        world=(),
        variants=_pairings("predators", "prey"),
        measures=(MetricColumn("touches", "touches an episode"),),
        claim=Claim(
            "MADDPG predators touch DDPG prey more often than DDPG predators touch MADDPG prey.",
            "touches an episode",
            "MADDPG predators, DDPG prey",
            "DDPG predators, MADDPG prey",
            more_is_better=True,
        ),
        published={"MADDPG predators, DDPG prey": "16.1", "DDPG predators, MADDPG prey": "10.3"},
        quick_steps=400_000,
    ),
    PaperTask(
        key="deception",
        title="Physical deception, N = 2",
        scenario="simple_adversary",
        world=(),
        variants=_pairings("adversary", "agents"),
        measures=(
            MetricColumn("agent_success", "agents at the goal", percent=True),
            MetricColumn("adversary_success", "adversary at the goal", percent=True),
            MetricColumn("agent_success", "agents' lead", minus="adversary_success", percent=True),
        ),
        claim=Claim(
            "MADDPG agents lead a DDPG adversary by more than DDPG agents lead a MADDPG adversary.",
            "agents' lead",
            "DDPG adversary, MADDPG agents",
            "MADDPG adversary, DDPG agents",
            more_is_better=True,
        ),
        published={"MADDPG adversary, MADDPG agents": "agents 94.4 %, adversary 39.2 %"},
        quick_steps=300_000,
    ),
    PaperTask(
        key="covert",
        title="Covert communication",
        scenario="simple_crypto",
        world=(),
        variants=_pairings("eve", "alice and bob"),
        measures=(
            MetricColumn("bob_success", "bob reads right", percent=True),
            MetricColumn("eve_success", "eve reads right", percent=True),
            MetricColumn("bob_success", "bob's lead", minus="eve_success", percent=True),
            MetricColumn("bob_error", "bob's error"),
            MetricColumn("eve_error", "eve's error"),
        ),
        claim=Claim(
            "MADDPG's bob leads a DDPG eve by more than DDPG's bob leads a MADDPG eve.",
            "bob's lead",
            "DDPG eve, MADDPG alice and bob",
            "MADDPG eve, DDPG alice and bob",
            more_is_better=True,
        ),
        published={},
        quick_steps=300_000,
        has_physics=False,
    ),
)
