"""The command `shoal train` whose roles reach each other through the links of a directory.

python -m tests.soak.churn.train LINKS train simple_spread ...
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deploy.local.launcher import LocalRun
from deploy.local.supervisor import SupervisedProcess
from shoal import cli
from shoal.commands.train import session
from tests.soak.churn.links import ROUTES


def main() -> None:
    """Runs `shoal` with the arguments behind the directory."""
    links = Path(sys.argv.pop(1))

    class LinkedRun(LocalRun):
        def _add_process(
            self, name: str, module: str, options: Mapping[str, object], *others: Any, **more: Any
        ) -> SupervisedProcess:
            return super()._add_process(
                name, module, {**options, **through_links(links, name, options)}, *others, **more
            )

    session.LocalRun = LinkedRun  # type: ignore[misc]
    cli.main()


def through_links(links: Path, role: str, options: Mapping[str, object]) -> dict[str, str]:
    """Returns the addresses with which a role reaches its peers through the links."""
    return {name: f"ipc://{links / f'{role}-{name}'}" for name in options if f"{role}-{name}" in ROUTES}


if __name__ == "__main__":
    main()
