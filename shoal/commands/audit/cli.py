"""The command `shoal audit`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import click
import msgspec
from msgspec import Meta

from common.process import command
from common.process.exit import FAILED
from common.run.directory import RunDirectory
from shoal.commands.audit.delivery_check import AuditResult, check_deliveries
from shoal.commands.audit.ledger import read_ledger


class AuditConfig(msgspec.Struct, frozen=True):
    """Settings of `shoal audit`."""

    redis: Annotated[
        str,
        Meta(
            description="Also check the chunks stored in this Redis. Pass a URL with a password as SHOAL_REDIS.",
            extra={"metavar": "URL", "may_hold_password": True},
        ),
    ] = ""
    name: Annotated[
        str, Meta(description="Name of the replay server (its --name).  [default: the run's id, or `default`]")
    ] = ""
    json: Annotated[bool, Meta(description="Print JSON.")] = False


@click.command("audit")
@click.argument("run", type=click.Path(path_type=Path))
@command.options(AuditConfig)
def audit_run(run: Path, **values: Any) -> int:
    """Check that no acknowledged chunk of RUN was lost.

    Reads the audit files that actors and replay servers wrote with --audit, and counts acknowledged chunks that are
    lost, stored twice, or stored out of order. RUN is the directory of a run made by `shoal train --audit`, or the
    directory that `actor` and `replay` received with --audit. Exits with code 1 if a delivery promise is broken.
    """
    config = command.build(AuditConfig, values)
    directory = audit if (audit := RunDirectory(run).audit).is_dir() else run
    name = config.name or (RunDirectory(run).run.id if RunDirectory(run).run_file.exists() else "default")
    result = check_deliveries(read_ledger(directory, config.redis, name))
    command.result(msgspec.json.encode(result) if config.json else as_text(result))
    return FAILED if result.broken else 0


def as_text(result: AuditResult) -> str:
    """Returns the result as lines of text."""
    figures = msgspec.to_builtins(result)
    broken = figures.pop("broken")
    lines = [f"{name.replace('_', ' '):<28}{value:>12,}" for name, value in figures.items()]
    promises = [f"BROKEN: {text}" for text in broken] or ["Every delivery promise holds."]
    return "\n".join([*lines, *promises])
