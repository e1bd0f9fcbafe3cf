"""The page of scenarios: who plays, what they see and do, what is rewarded, which options there are."""

from __future__ import annotations

from common.spec import Box, Part
from common.worlds import ScenarioRow, scenarios, world_spec
from shoal.commands.reference import markdown as md

_INTRODUCTION = """
The batched worlds, with their default options; `shoal scenarios` prints the same. How they relate to mpe2, and what
other worlds there are: [worlds.md](../worlds.md). An option is set by `--set world.NAME=VALUE`.
"""


def scenarios_page() -> str:
    """Returns the page."""
    return md.page("Scenarios", _INTRODUCTION, *map(_section, scenarios()))


def _section(row: ScenarioRow) -> str:
    agents = [
        [md.code(agent.name), agent.team, str(agent.obs_dim), ", ".join(_allowed_text(part) for part in agent.parts)]
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


def _allowed_text(part: Part) -> str:
    return f"{part.size} numbers" if isinstance(part, Box) else f"a choice of {part.n}"


def _value(value: object) -> str:
    return "none" if value is None else md.code(str(value).lower() if isinstance(value, bool) else value)
