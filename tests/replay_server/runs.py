"""A small run and its messages, for tests."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from common.run.run import Run, make_run_spec
from common.spec import AgentsSpec, Box, joint_spec
from common.transitions import transition_dtype
from common.wire.codec import checksum
from common.wire.messages import ActorReport, Chunk
from common.wire.weights import WeightsHeader, pack_weights

JOINT: AgentsSpec = joint_spec(
    [("red", "red", 3, (Box((-1.0,), (1.0,)),)), ("blue", "blue", 2, (Box((-1.0,), (1.0,)),))]
)
DTYPE = transition_dtype(JOINT)


def make_run(
    name: str = "run-1", *, world: dict[str, float] | None = None, discount: float = 0.95, **replay: object
) -> Run:
    """Returns a run with small replay settings, `replay` ones on top."""
    settings = {"capacity": 1_000, "batch": 8, "samples_per_insert": 2.0, "min_size": 20, **replay}
    sections = {"world": world or {}, "algorithm": {"discount": discount}, "replay": settings}
    return Run(name, make_run_spec({"scenario": "tiny", **sections}), JOINT)


def records(count: int, first: int = 0) -> np.ndarray:
    """Returns records `[count]` that carry the numbers `first`, `first` + 1, ... as their first reward."""
    block = np.zeros(count, DTYPE)
    block["reward"][:, 0] = np.arange(first, first + count)
    return block


def numbers(payload: bytes | memoryview | np.ndarray) -> list[int]:
    """Returns the numbers that records carry."""
    block = payload if isinstance(payload, np.ndarray) else np.frombuffer(payload, DTYPE)
    return [int(number) for number in block["reward"][:, 0]]


def make_chunk(
    run: Run,
    actor: str,
    seq: int,
    count: int = 10,
    *,
    first: int = 0,
    incarnation: int = 1,
    copies: int = 0,
    over: Sequence[int] = (),
) -> tuple[Chunk, bytes]:
    """Returns a chunk with its payload. If copies are told all agents act and go on; `over` end their episodes."""
    block = records(count, first)
    block["discount"] = block["present"] = float(copies > 0)
    payload = block.tobytes()
    ends = np.packbits(np.isin(np.arange(count), over)).tobytes() if copies else b""
    chunk = Chunk(
        actor=actor,
        incarnation=incarnation,
        seq=seq,
        count=count,
        policy_version=0,
        crc32c=checksum(payload),
        data_hash=run.data_hash,
        copies=copies,
        ends=ends,
        run=run.id,
    )
    return chunk, payload


def make_message(actor: str, incarnation: int, seq: int, copies: int, ends: bytes) -> Chunk:
    """Returns a chunk's message as the n-step index sees it, without count and checksum."""
    return Chunk(actor, incarnation, seq, 0, 0, 0, "", copies, ends)


def make_report(actor: str, episodes: int, return_sum: float, incarnation: int = 1) -> ActorReport:
    """Returns an actor's report."""
    return ActorReport(
        actor, incarnation, 100, episodes, return_sum, (return_sum / 4, return_sum * 3 / 4), 1, 0.5, "", 0.0, ""
    )


def make_weights(run: Run, version: int) -> bytes:
    """Returns a weights frame."""
    header = WeightsHeader(run.id, run.data_hash, version, 0, 0.1, 0.0)
    return pack_weights(header, np.full(4, version, np.float32))
