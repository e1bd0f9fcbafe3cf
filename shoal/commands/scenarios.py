"""The command `shoal scenarios`."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any

import click
import msgspec

from common.errors import ConfigError
from common.process import command
from common.spec import Box, Part
from common.worlds import ScenarioRow, world_spec
from common.worlds import scenarios as scenario_rows

_FOREIGN_WORLDS = "Any PettingZoo ParallelEnv: pettingzoo:package.module, as in pettingzoo:mpe2.simple_spread_v3"


@click.command()
@click.argument("name", default="")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def scenarios(name: str, as_json: bool) -> None:
    """List the scenarios, or show one: agents, observation and action sizes, sides, reward, options.

    \b
    Examples:
      shoal scenarios
      shoal scenarios simple_tag
    """  # noqa: D301  (click keeps the lines after a real backspace as they are)
    table = [_row(name)] if name else list(scenario_rows())
    if as_json:
        command.result(msgspec.json.encode([_as_json(row) for row in table]))
    elif name:
        _print_details(table[0])
    else:
        _print_list(table)


def _row(name: str) -> ScenarioRow:
    table = {row.name: row for row in scenario_rows()}
    if name not in table:
        close = get_close_matches(name, table, n=3)
        hint = f"did you mean {', '.join(close)}?" if close else f"known: {', '.join(table)}."
        raise ConfigError(f"there is no scenario {name!r}; {hint}")
    return table[name]


def _print_list(table: list[ScenarioRow]) -> None:
    width = max(len(row.name) for row in table)
    command.result(f"{'scenario':<{width}}  agents  sides  what it is")
    for row in table:
        command.result(f"{row.name:<{width}}  {len(row.agents):>6}  {len(row.teams):>5}  {row.doc}")
    command.result(f"\n{_FOREIGN_WORLDS}\nDetails of one: shoal scenarios NAME")


def _print_details(row: ScenarioRow) -> None:
    command.result(f"{row.name}: {row.doc}")
    for agent in world_spec(row.name).agents:
        parts = ", ".join(_part_text(part) for part in agent.parts)
        command.result(f"    {agent.name:<18} side {agent.team:<10} observes {agent.obs_dim:>3}, acts {parts}")
    command.result(f"    reward: {row.reward}")
    command.result(f"    options: {', '.join(f'{option.name}={option.default}' for option in row.options)}")


def _part_text(part: Part) -> str:
    return f"Box({part.size})" if isinstance(part, Box) else f"Categorical({part.n})"


def _as_json(row: ScenarioRow) -> dict[str, Any]:
    return {**msgspec.to_builtins(row), "agents": msgspec.to_builtins(world_spec(row.name).agents)}
