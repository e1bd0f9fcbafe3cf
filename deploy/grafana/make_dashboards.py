"""Writes the dashboards to dashboards/: `python -m deploy.grafana.make_dashboards`.

docs/metrics.md explains the metrics.
"""

from __future__ import annotations

import json
from pathlib import Path

from deploy.grafana.fleet_board import fleet_board
from deploy.grafana.panels import Json
from deploy.grafana.run_board import run_board

FOLDER = Path(__file__).parent / "dashboards"


def boards() -> dict[str, Json]:
    """Returns every dashboard by its file name."""
    return {"run.json": run_board(), "fleet.json": fleet_board()}


def as_text(board: Json) -> str:
    """Returns the content of a dashboard's file."""
    return json.dumps(board, indent=2) + "\n"


if __name__ == "__main__":
    for name, board in boards().items():
        (FOLDER / name).write_text(as_text(board))
