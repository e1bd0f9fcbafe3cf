"""Everything that opens bytes of others: what each may raise, and what it is fed to begin with.

    frames of peers and servers    a socket        common/wire/sockets.py
    the replay itself              a socket        replay_server/replay.py: nothing may come out at all
    weights                        a socket        common/wire/weights.py
    chunks, everything beside      Redis           replay_server/durability/chunk_format.py, log_index.py
    policies                       a file          common/policy/file.py
    keys, allow-list               a file          common/wire/keys.py

Formats with a checksum are fed twice: as they come, and with the checksums made right, so that what lies behind is
reached as well.
"""

from __future__ import annotations

import contextlib
import hashlib
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from common.errors import ConfigError, ProtocolError
from common.policy.file import PolicyFile, load_policy, save_policy
from common.wire.codec import checksum, decode_from_peer, decode_to_peer, encode
from common.wire.keys import load_keys, read_clients
from common.wire.messages import Bye, Hello, Open, Priorities, PutWeights, SampleRequest, StatusRequest
from common.wire.weights import unpack_weights
from replay_server.config import ReplayConfig
from replay_server.durability.chunk_format import pack_chunk, unpack_chunk
from replay_server.durability.chunk_log import LoggedChunk
from replay_server.durability.log_index import parse_contents
from replay_server.replay import Replay
from shoal.commands.keys import make_keys
from tests.common.examples import make_frame, random_weights
from tests.common.examples import make_run as make_mixed_run
from tests.replay_server.runs import DTYPE, make_chunk, make_report, make_run

NUMBER = 7
_SEPARATOR = b"\x00|\x00"


class Decoder(NamedTuple):
    """One thing that opens bytes."""

    open: Callable[[bytes], object]
    """Raises what it may not, and nothing else: what it may is taken here."""
    seeds: tuple[bytes, ...]
    """Valid input."""


def _from_peer(data: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        decode_from_peer([data])


def _to_peer(data: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        decode_to_peer([data])


def _weights(data: bytes) -> None:
    sealed = data + hashlib.blake2b(data, digest_size=16).digest()
    for frame in (data, sealed):
        with contextlib.suppress(ProtocolError):
            unpack_weights(frame)


_FIXED = struct.Struct("<4sHHIIIQQQ")


def _sealed(data: bytes) -> bytes:
    """Returns a chunk with its checksums and its number made right."""
    if len(data) < _FIXED.size:
        return data
    magic, actor, steps, count, _, version, _, incarnation, seq = _FIXED.unpack_from(data)
    end = _FIXED.size + actor + steps
    records = data[end + 4 :]
    fixed = _FIXED.pack(magic, actor, steps, count, checksum(records), version, NUMBER, incarnation, seq)
    header = fixed + data[_FIXED.size : end]
    return header + struct.pack("<I", checksum(header)) + records


def _chunk(data: bytes) -> None:
    for value in (data, _sealed(data)):
        for record_bytes in (DTYPE.itemsize, 1):
            with contextlib.suppress(ProtocolError):
                unpack_chunk(value, NUMBER, record_bytes)


def _log(data: bytes) -> None:
    state, actors, run, *weights = data.split(_SEPARATOR)[:4] if data.count(_SEPARATOR) > 1 else (data, data, data)
    pairs = [dict(pair.split(b"=", 1) for pair in part.split(b",") if b"=" in pair) for part in (state, actors)]
    # `RedisLog.read` turns these into a ConfigError with the way out.
    with contextlib.suppress(ValueError, msgspec.ValidationError):
        parse_contents(pairs[0], pairs[1], run, weights[0] if weights else None)


_directory = tempfile.TemporaryDirectory(prefix="fuzz-")
_files = Path(_directory.name)


def _policy_file(data: bytes) -> None:
    path = _files / "policy.safetensors"
    path.write_bytes(data)
    with contextlib.suppress(ConfigError):
        load_policy(path)


def _keys(data: bytes) -> None:
    directory = _files / "keys"
    directory.mkdir(exist_ok=True)
    for name in ("a.key_secret", "allowed_clients"):
        (directory / name).write_bytes(data)
    (directory / "a.key_secret").chmod(0o600)
    with contextlib.suppress(ConfigError):
        load_keys(str(directory))
    with contextlib.suppress(ConfigError):
        read_clients(directory / "allowed_clients")


class _Served:
    """A replay with a run, an actor and a learner, which takes whatever can be decoded."""

    def __init__(self) -> None:
        self._begin()

    def __call__(self, data: bytes) -> None:
        header, _, payload = data.partition(_SEPARATOR)
        try:
            message, _ = decode_from_peer([header])
        except ProtocolError:
            return
        if isinstance(message, Open):
            # What a run may ask for is bounded by the machine's memory; here by what a million of them may take.
            replay = msgspec.structs.replace(message.run.spec.replay, capacity=1_000, min_size=20, batch=8)
            spec = msgspec.structs.replace(message.run.spec, replay=replay)
            message = msgspec.structs.replace(message, run=msgspec.structs.replace(message.run, spec=spec))
        self._now += 0.01
        replies = [*self._replay.handle(b"x", message, payload or None, self._now), *self._replay.advance(self._now)]
        for _, answer, frame in replies:
            decode_to_peer(encode(answer, frame))
        self._turns += 1
        if self._turns >= 2_000:
            self._begin()

    def _begin(self) -> None:
        self._now, self._turns = 0.0, 0
        self._replay = Replay(ReplayConfig(durability="ram", capacity=1_000), self._now)
        run = make_run(n_step=3, priority_exponent=1.0)
        self._replay.handle(b"learner", Open("learner", run), None, self._now)
        self._replay.handle(b"x", Hello("a", 0, 0, ""), None, self._now)
        self._replay.handle(b"x", *make_chunk(run, "a", 1, 20, copies=2), self._now)


def _header(message: object, payload: bytes = b"") -> bytes:
    return encode(message)[0] + (_SEPARATOR + payload if payload else b"")  # type: ignore[arg-type]


def _policy_bytes() -> bytes:
    run, path = make_mixed_run(network={"policy_hidden": [2]}), _files / "seed.safetensors"
    save_policy(path, PolicyFile(run, 3, 30, random_weights(run)))
    return path.read_bytes()


def _key_files() -> tuple[bytes, ...]:
    make_keys(_files / "made", ["carol"])
    names = ("actor/actor.key_secret", "actor/replay.key", "replay/allowed_clients")
    return tuple((_files / "made" / name).read_bytes() for name in names)


def _seeds() -> dict[str, tuple[bytes, ...]]:
    run, mixed, small = make_run(), make_mixed_run(), make_mixed_run(network={"policy_hidden": [2]})
    chunk, payload = make_chunk(run, "a", 2, 10, copies=2)
    fixed, records = pack_chunk(LoggedChunk(NUMBER, chunk, payload, 10))
    messages = (
        _header(Hello("a", 1, 0, run.data_hash)),
        _header(chunk, payload),
        _header(make_report("a", 3, 4.0)),
        _header(Bye("a", 1)),
        _header(Open("learner", make_run(n_step=3, priority_exponent=1.0))),
        _header(SampleRequest(1, 8)),
        _header(Priorities(2), np.zeros(48, np.uint8).tobytes()),
        _header(PutWeights(3), b"weights"),
        _header(StatusRequest()),
    )
    log = (b"format=1,head=9,tail=2,inserts=90,samples=80", b"a=1:9,b=2:4", msgspec.json.encode(run), b"w")
    return {
        "from_peer": (*(message.partition(_SEPARATOR)[0] for message in messages), encode(Open("l", mixed))[0]),
        "replay": messages,
        "weights": (make_frame(small)[:-16], make_frame(small)),
        "chunk": (fixed + bytes(records),),
        "log": (_SEPARATOR.join(log),),
        "policy_file": (_policy_bytes(),),
        "keys": _key_files(),
    }


def _answers() -> tuple[bytes, ...]:
    from common.wire.messages import Ack, Batch, Fenced, Gap, Held, NotReady, Opened, Refused, Unknown, Welcome

    answers = (
        Welcome(make_mixed_run(), 1, 2, 3),
        NotReady("no run"),
        Ack(1, 2, 3, ""),
        Gap(1, 2),
        Fenced(1),
        Opened(1, 2, 3, 4),
        Batch(1, 2, 3, 4),
        Held(1, 2, "why"),
        Unknown(),
        Refused("why"),
    )
    return tuple(encode(answer)[0] for answer in answers)


_SEEDS = _seeds()
DECODERS = {
    "from_peer": Decoder(_from_peer, _SEEDS["from_peer"]),
    "to_peer": Decoder(_to_peer, _answers()),
    "replay": Decoder(_Served(), _SEEDS["replay"]),
    "weights": Decoder(_weights, _SEEDS["weights"]),
    "chunk": Decoder(_chunk, _SEEDS["chunk"]),
    "log": Decoder(_log, _SEEDS["log"]),
    "policy_file": Decoder(_policy_file, _SEEDS["policy_file"]),
    "keys": Decoder(_keys, _SEEDS["keys"]),
}
"""Each with the name it is run by."""
