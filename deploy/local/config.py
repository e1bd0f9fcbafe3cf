"""The options of `shoal train`."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from common.errors import ConfigError
from learner_node.config import Track

PRESET_PROCESSES = {"seed": {"actors": 1, "copies": 4}}
"""Defaults of this command's options that a preset changes, in addition to the run's settings."""


class TrainConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The processes of a run on one machine, and the directory of the run."""

    actors: Annotated[
        int, Meta(ge=1, le=4096, description="Number of worker processes that play the world (--preset seed: 1).")
    ] = 2
    copies: Annotated[
        int,
        Meta(
            ge=0,
            le=65_536,
            description="World copies that each worker steps in one batch; 0 chooses 32, or with --preset control 4 to"
            " 8 of a world that steps copy by copy (--preset seed: 4).",
        ),
    ] = 0
    chunk_rows: Annotated[
        int,
        Meta(ge=1, le=65_536, description="Approximate transitions per chunk; rounded to whole steps of all copies."),
    ] = 256
    run: Annotated[str, Meta(description="Directory of the run. Default: runs/SCENARIO-DATE-TIME.")] = ""
    resume: Annotated[bool, Meta(description="Continue the run in --run.")] = False
    lockstep: Annotated[
        bool,
        Meta(description="Run all parts in one process in a fixed order: the same seed gives the same bits."),
    ] = False
    redis: Annotated[
        str,
        Meta(
            description="Where to store transitions in addition to RAM: embedded (a private server that ends with the "
            "run), none, or the URL of a running server.",
            extra={"metavar": "embedded|none|URL", "may_hold_password": True},
        ),
    ] = "embedded"
    redis_password_file: Annotated[
        str, Meta(description="File with the password for a --redis URL.", extra={"metavar": "FILE"})
    ] = ""
    redis_ca_file: Annotated[
        str,
        Meta(description="CA certificates that verify a rediss:// server.", extra={"metavar": "FILE"}),
    ] = ""
    audit: Annotated[
        bool, Meta(description="Record every sent and stored chunk in RUN/audit, for `shoal audit RUN`.")
    ] = False
    gpu: Annotated[bool, Meta(description="Train on CUDA.")] = False
    threads: Annotated[int, Meta(ge=1, le=256, description="Number of CPU threads of the learner.")] = 1
    episodes: Annotated[
        Annotated[int, Meta(ge=0)] | None,
        Meta(
            description="Episodes of the final evaluation; 0 skips it.  [default: 1000 in a batched world; elsewhere "
            "as many as fit into 60 s, at least 20]"
        ),
    ] = None
    track: Track = "none"
    dashboard: Annotated[bool, Meta(description="Serve the run's live report to browsers on this machine.")] = False
    dashboard_port: Annotated[int, Meta(ge=0, lt=65_536, description="Port of --dashboard; 0 chooses a free one.")] = 0
    metrics_port: Annotated[
        int,
        Meta(
            ge=0,
            le=65_533,
            description="Port of /metrics of the replay server; the next two are of learner and actors. 0 chooses free"
            " ones.",
        ),
    ] = 0
    no_film: Annotated[bool, Meta(description="Do not render a film at the end.")] = False
    json: Annotated[bool, Meta(description="Print only the result on stdout, as JSON.")] = False

    @property
    def lockstep_options(self) -> tuple[object, ...]:
        """The words of the options with which a lockstep run must be resumed."""
        processes = ("--actors", self.actors, "--copies", self.copies)
        chunks = () if self.chunk_rows == TrainConfig().chunk_rows else ("--chunk-rows", self.chunk_rows)
        return ("--lockstep", *processes, *chunks, "--threads", self.threads)

    def check_lockstep(self) -> None:
        """Raises ConfigError for options that `--lockstep` does not support."""
        if self.gpu:
            raise ConfigError(
                "--lockstep does not support --gpu: sums on a GPU are not reproducible bit for bit; omit one of them."
            )
        if self.audit:
            raise ConfigError(
                "--lockstep does not support --audit: it sends no chunks that could be lost; omit one of them."
            )
        if self.metrics_port:
            raise ConfigError(
                f"--lockstep does not support --metrics-port {self.metrics_port}: it serves no metrics; omit one of"
                " them."
            )
        if self.redis not in ("embedded", "none"):
            raise ConfigError(
                "--lockstep does not support a --redis URL: it stores transitions in this process and in the run's "
                "directory; omit one of them."
            )
