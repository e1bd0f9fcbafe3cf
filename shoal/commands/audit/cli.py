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
from shoal.commands.audit.ledger import read_ledger
from shoal.commands.audit.verdict import Verdict, judge

"""Where `shoal train --audit` has its processes note their chunks, in the run's directory."""


class AuditConfig(msgspec.Struct, frozen=True):
    """Settings of `shoal audit`."""

    redis: Annotated[
        str,
        Meta(
            description="Compare with what this Redis holds, too; an address with a password by SHOAL_REDIS.",
            extra={"metavar": "URL", "may_hold_password": True},
        ),
    ] = ""
    name: Annotated[str, Meta(description="The replay server's --name there. Default: the run's id, or default.")] = ""
    json: Annotated[bool, Meta(description="Print JSON.")] = False


@click.command("audit")
@click.argument("run", type=click.Path(path_type=Path))
@command.options(AuditConfig)
def audit_run(run: Path, **values: Any) -> int:
    """Prove what became of every chunk of RUN, from what actors and replay servers noted with --audit.

    RUN is the directory of a run that `shoal train --audit` made, or the directory that `actor` and `replay` were
    given. Counts chunks that were acknowledged and are lost, stored twice, or stored out of order. Exit code 1 when a
    promise is broken.
    """
    config = command.build(AuditConfig, values)
    directory = audit if (audit := RunDirectory(run).audit).is_dir() else run
    name = config.name or (RunDirectory(run).run.id if RunDirectory(run).run_file.exists() else "default")
    verdict = judge(read_ledger(directory, config.redis, name))
    command.result(msgspec.json.encode(verdict) if config.json else in_words(verdict))
    return FAILED if verdict.broken else 0


def in_words(verdict: Verdict) -> str:
    """Returns the verdict as lines of text."""
    figures = msgspec.to_builtins(verdict)
    broken = figures.pop("broken")
    lines = [f"{name.replace('_', ' '):<28}{value:>12,}" for name, value in figures.items()]
    promise = [f"BROKEN: {words}" for words in broken] or ["every promise of delivery holds"]
    return "\n".join([*lines, *promise])
