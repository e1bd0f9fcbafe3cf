"""Settings of a learner process."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from common.process.durations import Seconds
from common.wire.keys import KeysOption

TrackerKind = Literal["none", "mlflow", "wandb"]
Track = Annotated[TrackerKind, Meta(description="Also send the lines of metrics.jsonl to MLflow or Weights & Biases.")]


class LearnerConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Options of one learner: its device, its peers, and the directory of its run."""

    gpu: Annotated[bool, Meta(description="Train on CUDA.")] = False
    threads: Annotated[int, Meta(ge=1, le=256, description="Number of CPU threads of an update.")] = 1
    scenario: Annotated[str, Meta(description="The world to train on; `shoal scenarios` lists the names.")] = ""
    run: Annotated[str, Meta(description="Directory of the run. Default: runs/SCENARIO-DATE-TIME.")] = ""
    resume: Annotated[
        bool,
        Meta(description="Continue the run in --run. With --scenario, start it if --run has none yet."),
    ] = False
    stay: Annotated[
        bool,
        Meta(description="Wait for SIGTERM after the run is done, for services that restart processes that end."),
    ] = False
    fresh: Annotated[
        bool,
        Meta(
            description="Discard the transitions of another run at the replay server, though that run is not finished."
            " Refused while a learner of that run is connected."
        ),
    ] = False
    replay: Annotated[
        tuple[str, ...],
        Meta(
            min_length=1,
            description="Address of a replay server. Repeat it to draw from several in proportion to their size.",
        ),
    ] = ("tcp://127.0.0.1:5555",)
    bind: Annotated[str, Meta(description="Address to broadcast the weights on.")] = "tcp://127.0.0.1:5556"
    keys: KeysOption = ""
    insecure: Annotated[
        bool, Meta(description="Allow a --bind address that other machines can reach without keys.")
    ] = False
    prefetch: Annotated[int, Meta(ge=1, le=64, description="Number of batches requested ahead.")] = 4
    checkpoint_every: Annotated[Seconds, Meta(description="Time between checkpoints [s].")] = 20.0
    keep_checkpoints: Annotated[int, Meta(ge=1, description="Number of checkpoints to keep, besides the best one.")] = 3
    track: Track = "none"
    peer_timeout: Annotated[
        Seconds, Meta(description="Exit with code 3 if no replay server answers within this time [s]; 0 waits forever.")
    ] = 0.0
    metrics_host: Annotated[str, Meta(description="Address of the HTTP port.")] = "127.0.0.1"
    metrics_port: Annotated[
        int, Meta(ge=0, le=65_535, description="Port of /metrics, /healthz and /readyz; 0 picks a free one.")
    ] = 9102
    parent: Annotated[int, Meta(ge=0, description="End when this process ends.", extra={"hidden": True})] = 0
