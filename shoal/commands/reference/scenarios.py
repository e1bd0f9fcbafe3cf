"""The page of scenarios: agents, observations, actions, rewards and options of each batched world."""

from __future__ import annotations

from common.spec import Box, Part
from common.worlds import ScenarioRow, scenarios, world_spec
from shoal.commands.reference import markdown as md

_INTRODUCTION = """
The batched worlds with their default options, as `shoal scenarios` prints them. [worlds.md](../worlds.md) explains how
they relate to mpe2, and which other worlds there are. Set an option with `--set world.NAME=VALUE`. Every world also has
the option `history` ([stacked history](../worlds.md#stacked-history)).
"""


def scenarios_page() -> str:
    """Returns the page as Markdown."""
    return md.page("Scenarios", _INTRODUCTION, *map(_section, scenarios()))


def _section(row: ScenarioRow) -> str:
    agents = [
        [md.code(agent.name), agent.team, str(agent.obs_dim), ", ".join(_part_text(part) for part in agent.parts)]
        for agent in world_spec(row.name).agents
    ]
    options = [[md.code(option.name), _value(option.default), option.allowed] for option in row.options]
    return "\n\n".join(
        [
            f"## {row.name}",
            row.doc,
            f"Reward of a step: {row.reward}.",
            md.table(["agent", "side", "numbers observed", "action"], agents),
            md.table(["option", "default", "allowed"], options),
        ]
    )


def _part_text(part: Part) -> str:
    return f"{part.size} numbers" if isinstance(part, Box) else f"a choice of {part.n}"


def _value(value: object) -> str:
    return "none" if value is None else md.code(str(value).lower() if isinstance(value, bool) else value)
