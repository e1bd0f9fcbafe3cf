"""Settings of a learner process."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from common.process.durations import Seconds
from common.wire.keys import KeysOption

TrackerKind = Literal["none", "mlflow", "wandb"]
Track = Annotated[
    TrackerKind, Meta(description="Also send the figures of metrics.jsonl to MLflow or Weights & Biases.")
]


class LearnerConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One learner: its device, its peers, and where its run goes."""

    gpu: Annotated[bool, Meta(description="Train on CUDA.")] = False
    threads: Annotated[int, Meta(ge=1, le=256, description="CPU threads of an update.")] = 1
    scenario: Annotated[str, Meta(description="What to train on; `shoal scenarios` lists them.")] = ""
    run: Annotated[str, Meta(description="Directory of the run. Default: runs/SCENARIO-DATE-TIME.")] = ""
    resume: Annotated[
        bool,
        Meta(description="Go on with the run that --run holds; with --scenario, begin it where there is none yet."),
    ] = False
    stay: Annotated[
        bool,
        Meta(description="Wait for SIGTERM once the run is done: for services that are started again when they end."),
    ] = False
    replay: Annotated[
        tuple[str, ...],
        Meta(min_length=1, description="Replay server; repeat it to draw from several, by what they hold."),
    ] = ("tcp://127.0.0.1:5555",)
    bind: Annotated[str, Meta(description="Address where the weights are broadcast.")] = "tcp://127.0.0.1:5556"
    keys: KeysOption = ""
    insecure: Annotated[bool, Meta(description="Allow a --bind address that others can reach without keys.")] = False
    prefetch: Annotated[int, Meta(ge=1, le=64, description="Batches asked for ahead.")] = 4
    checkpoint_every: Annotated[Seconds, Meta(description="Time between checkpoints.")] = 20.0
    keep_checkpoints: Annotated[int, Meta(ge=1, description="Checkpoints kept, beside the best one.")] = 3
    track: Track = "none"
    peer_timeout: Annotated[
        Seconds, Meta(description="Give up (exit code 3) when no replay server answered for so long; 0 = wait on.")
    ] = 0.0
    metrics_host: Annotated[str, Meta(description="Address of the HTTP port.")] = "127.0.0.1"
    metrics_port: Annotated[
        int, Meta(ge=0, le=65_535, description="Port of /metrics, /healthz and /readyz; 0 = any free one.")
    ] = 9102
    parent: Annotated[int, Meta(ge=0, description="End when this process ends.", extra={"hidden": True})] = 0
