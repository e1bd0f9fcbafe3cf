"""Settings of `shoal train`."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta


class TrainConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One machine's processes and where the run goes."""

    actors: Annotated[int, Meta(ge=1, le=4096, description="Worker processes that play the world.")] = 2
    copies: Annotated[int, Meta(ge=1, le=65_536, description="Copies of the world each worker steps in one batch.")] = (
        32
    )
    run: Annotated[str, Meta(description="Directory of the run. Default: runs/SCENARIO-DATE-TIME.")] = ""
    resume: Annotated[bool, Meta(description="Go on with the run that --run holds.")] = False
    redis: Annotated[
        str,
        Meta(
            description="Where transitions are kept beside RAM: embedded (a private server that ends with the run), "
            "none, or the URL of a server that runs.",
            extra={"metavar": "embedded|none|URL"},
        ),
    ] = "embedded"
    gpu: Annotated[bool, Meta(description="Train on CUDA.")] = False
    threads: Annotated[int, Meta(ge=1, le=256, description="CPU threads of the learner.")] = 1
    episodes: Annotated[int, Meta(ge=0, description="Episodes of the final evaluation; 0 = none.")] = 1_000
    json: Annotated[bool, Meta(description="Print the result as JSON on stdout, and nothing else there.")] = False
