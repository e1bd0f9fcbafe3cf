"""Settings of `shoal train`."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from common.errors import ConfigError
from learner_node.config import Track

STARTED_BY_PRESET = {"seed": {"actors": 1, "copies": 4}}
"""What a preset starts where nothing else is given, beside the settings of the run that it stands for."""


class TrainConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One machine's processes and where the run goes."""

    actors: Annotated[
        int, Meta(ge=1, le=4096, description="Worker processes that play the world (--preset seed: 1).")
    ] = 2
    copies: Annotated[
        int, Meta(ge=1, le=65_536, description="Copies of the world each worker steps in one batch (--preset seed: 4).")
    ] = 32
    chunk_rows: Annotated[
        int,
        Meta(ge=1, le=65_536, description="Transitions in a chunk, about: rounded to whole steps of all copies."),
    ] = 256
    run: Annotated[str, Meta(description="Directory of the run. Default: runs/SCENARIO-DATE-TIME.")] = ""
    resume: Annotated[bool, Meta(description="Go on with the run that --run holds.")] = False
    lockstep: Annotated[
        bool,
        Meta(description="Run all parts in one process in a fixed order: the same seed gives the same bits."),
    ] = False
    redis: Annotated[
        str,
        Meta(
            description="Where transitions are kept beside RAM: embedded (a private server that ends with the run), "
            "none, or the URL of a server that runs.",
            extra={"metavar": "embedded|none|URL", "may_hold_password": True},
        ),
    ] = "embedded"
    redis_password_file: Annotated[
        str, Meta(description="File that holds the password of a --redis URL.", extra={"metavar": "FILE"})
    ] = ""
    redis_ca_file: Annotated[
        str,
        Meta(description="Certificates that a rediss:// server's is checked against.", extra={"metavar": "FILE"}),
    ] = ""
    audit: Annotated[
        bool, Meta(description="Note in RUN/audit every chunk that is sent and stored, for `shoal audit RUN`.")
    ] = False
    gpu: Annotated[bool, Meta(description="Train on CUDA.")] = False
    threads: Annotated[int, Meta(ge=1, le=256, description="CPU threads of the learner.")] = 1
    episodes: Annotated[
        Annotated[int, Meta(ge=0)] | None,
        Meta(
            description="Episodes of the final evaluation; 0 = none.  [default: 1000 in a batched world; elsewhere as "
            "many as fit into 60 s, at least 20]"
        ),
    ] = None
    track: Track = "none"
    dashboard: Annotated[bool, Meta(description="Serve the run's report to browsers on this machine, live.")] = False
    dashboard_port: Annotated[int, Meta(ge=0, lt=65_536, description="Its port; 0 = any free one.")] = 0
    no_film: Annotated[bool, Meta(description="Make no film at the end.")] = False
    json: Annotated[bool, Meta(description="Print the result as JSON on stdout, and nothing else there.")] = False

    @property
    def lockstep_options(self) -> str:
        """The options that a lockstep run must be resumed with."""
        chunks = "" if self.chunk_rows == TrainConfig().chunk_rows else f" --chunk-rows {self.chunk_rows}"
        return f"--lockstep --actors {self.actors} --copies {self.copies}{chunks} --threads {self.threads}"

    def refuse_what_lockstep_is_not(self) -> None:
        """Raises ConfigError for options with which lockstep could not keep its promise."""
        if self.gpu:
            raise ConfigError(
                "--lockstep with --gpu: a GPU's sums are not promised to be the same bit for bit; leave one of them out"
            )
        if self.audit:
            raise ConfigError("--lockstep with --audit: nothing is sent that could be lost; leave one of them out")
        if self.redis not in ("embedded", "none"):
            raise ConfigError(
                "--lockstep with a --redis URL: its transitions are in this process and in the run's directory, not in "
                "Redis; leave one of them out"
            )
