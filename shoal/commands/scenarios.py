"""The command `shoal scenarios`."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any

import click
import msgspec

from common.errors import ConfigError
from common.process import command
from common.process.shell_command import shell_command
from common.spec import AgentsSpec, Box, Part
from common.worlds import ScenarioRow, world_spec
from common.worlds import scenarios as scenario_rows
from common.worlds.adapters.first_copy import FirstCopy, Found, Watch
from common.worlds.families import FAMILIES, Family, family_of


@click.command()
@click.argument("name", default="")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def scenarios(name: str, as_json: bool) -> None:
    """List the scenarios, or show one: agents, observation and action sizes, sides, reward, options.

    NAME may be a scenario, a family (`pettingzoo`) or a world of a family, of which one copy is made.

    \b
    Examples:
      shoal scenarios
      shoal scenarios simple_tag
      shoal scenarios mamujoco
      shoal scenarios gymnasium:Pendulum-v1
    """  # noqa: D301  (click keeps the lines after a real backspace as they are)
    family = next((one for one in FAMILIES if name.removesuffix(":") == one.prefix), None)
    if family is not None:
        _print_family(family, as_json=as_json)
    elif family_of(name) is not None:
        _print_foreign(name, as_json=as_json)
    else:
        _print_scenarios(name, as_json=as_json)


def _print_scenarios(name: str, *, as_json: bool) -> None:
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
        meant = f"did you mean {', '.join(close)}?" if close else f"known: {', '.join(table)}."
        raise ConfigError(
            f"there is no scenario {name!r}; {meant} `shoal scenarios` lists the families of other worlds."
        )
    return table[name]


def _print_list(table: list[ScenarioRow]) -> None:
    width = max(len(row.name) for row in table)
    command.result(f"{'scenario':<{width}}  agents  sides  what it is")
    for row in table:
        command.result(f"{row.name:<{width}}  {len(row.agents):>6}  {len(row.teams):>5}  {row.doc}")
    command.result("\nother worlds, as FAMILY:NAME")
    width = max(len(family.example) for family in FAMILIES)
    for family in FAMILIES:
        command.result(f"{family.example:<{width}}  {family.meaning}")
        if state := _installed(family):
            command.result(f"{'':<{width}}  {state}")
    command.result("\nDetails of one: shoal scenarios NAME")


def _installed(family: Family) -> str:
    if not family.package:
        return ""
    version = family.installed_version()
    return f"{family.package} {version}" if version else f"{family.package} is not installed: {family.install}"


def _print_family(family: Family, *, as_json: bool) -> None:
    is_ready = bool(family.installed_version() or not family.package)
    names, missing = (family.names(), family.uninstalled()) if is_ready else ([], {})
    if as_json:
        rows = [{"name": name} | ({"install": missing[name]} if name in missing else {}) for name in names]
        command.result(msgspec.json.encode(rows))
        return
    command.result(f"{family.prefix}: {family.meaning}")
    if state := _installed(family):
        command.result(f"    {state}")
    command.result(f"    for example: {shell_command('shoal', 'train', family.example)}")
    for name in names:
        if name not in missing:
            command.result(f"    {name}")
    for install in dict.fromkeys(missing.values()):
        command.result(f"    not installed; {install} adds:")
        for name in names:
            if missing.get(name) == install:
                command.result(f"        {name}")


def _print_foreign(name: str, *, as_json: bool) -> None:
    found = FirstCopy(name, {}, Watch(notify=lambda text: click.echo(text, err=True))).read()
    if as_json:
        command.result(msgspec.json.encode([_foreign_as_json(name, found)]))
        return
    command.result(name)
    _print_agents(found.agents)
    command.result(f"    options: {', '.join(found.options) or 'none'}")


def _print_details(row: ScenarioRow) -> None:
    command.result(f"{row.name}: {row.doc}")
    _print_agents(world_spec(row.name))
    command.result(f"    reward: {row.reward}")
    command.result(f"    options: {', '.join(f'{option.name}={option.default}' for option in row.options)}")


def _print_agents(agents: AgentsSpec) -> None:
    for agent in agents.agents:
        parts = ", ".join(_part_text(part) for part in agent.parts)
        command.result(f"    {agent.name:<18} side {agent.team:<10} observes {agent.obs_dim:>3}, acts {parts}")


def _part_text(part: Part) -> str:
    return f"Box({part.size})" if isinstance(part, Box) else f"Categorical({part.n})"


def _as_json(row: ScenarioRow) -> dict[str, Any]:
    return {**msgspec.to_builtins(row), "agents": msgspec.to_builtins(world_spec(row.name).agents)}


def _foreign_as_json(name: str, found: Found) -> dict[str, Any]:
    agents = found.agents
    return {
        "name": name,
        "agents": msgspec.to_builtins(agents.agents),
        "teams": list(agents.sides),
        "options": list(found.options),
    }
