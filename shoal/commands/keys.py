"""`shoal keys`: makes the CURVE keys of a run's processes, adds clients, and shuts them out again.

    DIR/replay/     replay.key_secret, allowed_clients                  replay --keys DIR/replay
    DIR/learner/    learner.key_secret, allowed_clients, replay.key     learner --keys DIR/learner
    DIR/actor/      actor.key_secret, replay.key, learner.key           actor --keys DIR/actor, shoal status --keys ...
    DIR/NAME/       the same for each further client

Each directory is what one process needs, and all that its machine should get. What is made appears at once or not at
all: it is made beside its place and renamed.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import click
import msgspec
import zmq
from msgspec import Meta

from common.errors import ConfigError
from common.process import command
from common.wire.keys import ALLOWED, PUBLIC_SUFFIX, SECRET_SUFFIX, ClientKind, read_allowed, require_safe_libzmq

SERVERS = ("replay", "learner")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,59}")
_ALLOWED_HEADER = """\
# Whom this server lets in, a client a line: actor|learner NAME PUBLIC-KEY
# Read again when it has changed: who is added may in at once; who is removed stays out once its connection has ended.
"""


class KeysConfig(msgspec.Struct, frozen=True):
    """Settings of `shoal keys`."""

    clients: Annotated[
        tuple[str, ...],
        Meta(description="A client with a key of its own, beside `actor`; repeat it. Adds it to keys that exist."),
    ] = ()
    n: Annotated[
        int, Meta(ge=0, le=4096, description="As many further clients: actor-1 to actor-N, one for each node.")
    ] = 0
    revoke: Annotated[
        tuple[str, ...], Meta(description="A client to shut out; repeat it. Its directory here is deleted.")
    ] = ()
    json: Annotated[bool, Meta(description="Print JSON.")] = False


class MadeKey(msgspec.Struct, frozen=True):
    """One process's keys, without what is secret of them."""

    name: str
    directory: str
    public_key: str


class KeysChange(msgspec.Struct, frozen=True):
    """What `shoal keys` did."""

    directory: str
    made: tuple[MadeKey, ...]
    revoked: tuple[str, ...]
    allowed: dict[str, list[str]]
    """The clients that each server lets in, by name."""


@click.command("keys")
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@command.options(KeysConfig)
def keys(directory: Path, **values: object) -> None:
    """Make the keys that replay, learner and actors need to trust each other over a network.

    DIR gets a directory for each process, to be copied to its machine and named there by --keys. Where DIR holds keys
    already nothing is overwritten: --clients adds, --revoke shuts out.

    \b
    Examples:
      shoal keys keys
      shoal keys keys --clients carol --clients cluster
      shoal keys keys --revoke carol
    """  # noqa: D301  (click keeps the lines after a real backspace as they are)
    config = command.build(KeysConfig, values)
    require_safe_libzmq("shoal keys")
    change = change_keys(directory, [*config.clients, *(f"actor-{i}" for i in range(1, config.n + 1))], config.revoke)
    if config.json:
        command.result(msgspec.json.encode(change))
    else:
        command.result(_in_words(change))


def change_keys(directory: Path, clients: Sequence[str], revoked: Sequence[str]) -> KeysChange:
    """Makes keys where there are none, adds clients, shuts clients out; ConfigError, and then nothing has changed."""
    new = not _holds_keys(directory)
    _check(directory, clients, revoked, new=new)
    try:
        made = [make_keys(directory, clients)] if new else [add_client(directory, name) for name in clients]
        for name in revoked:
            revoke_client(directory, name)
    except OSError as e:
        raise ConfigError(f"{directory} cannot be written ({e.strerror}); name a directory of your own") from e
    allowed = {
        server: sorted(client.name for client in read_allowed(directory / server / ALLOWED).values())
        for server in SERVERS
    }
    return KeysChange(str(directory), tuple(key for group in made for key in group), tuple(revoked), allowed)


def make_keys(directory: Path, clients: Sequence[str]) -> list[MadeKey]:
    """Makes the keys of both servers, of `actor`, and of further clients, all of them or none."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{directory.name}-", dir=directory.parent))  # its mode is 0700
    try:
        public = {server: _make_identity(draft, server) for server in SERVERS}
        _write(draft / "learner" / f"replay{PUBLIC_SUFFIX}", _certificate(public["replay"]), 0o644)
        for server in SERVERS:
            _write(draft / server / ALLOWED, _ALLOWED_HEADER, 0o644)
        _allow(draft / "replay", "learner", "learner", public["learner"])
        for name in ("actor", *clients):
            public[name] = _make_client(draft, draft, name)
            _allow_actor(draft, name, public[name])
        draft.rename(directory)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return [_made(directory, name, key) for name, key in public.items()]


def add_client(directory: Path, name: str) -> list[MadeKey]:
    """Makes the keys of one more client and has both servers let it in."""
    draft = Path(tempfile.mkdtemp(prefix=".client-", dir=directory))
    try:
        public = _make_client(draft, directory, name)
        (draft / name).rename(directory / name)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    _allow_actor(directory, name, public)
    return [_made(directory, name, public)]


def revoke_client(directory: Path, name: str) -> None:
    """Takes a client off both servers' lists, then deletes its keys here."""
    for server in SERVERS:
        file = directory / server / ALLOWED
        lines = file.read_text("utf-8").splitlines(keepends=True)
        kept = [line for line in lines if line.startswith("#") or line.split()[1:2] != [name]]
        _replace(file, "".join(kept))
    shutil.rmtree(directory / name, ignore_errors=True)


def _holds_keys(directory: Path) -> bool:
    """Says whether a directory holds keys; ConfigError when it holds something else."""
    try:
        found = sorted(one.name for one in directory.iterdir())
    except FileNotFoundError:
        return False
    except OSError as e:
        raise ConfigError(f"{directory}: {e.strerror}; name a directory for the keys") from e
    if found and not all((directory / server / ALLOWED).exists() for server in SERVERS):
        raise ConfigError(f"{directory} holds something else ({', '.join(found[:3])}); name one that is new or empty")
    return bool(found)


def _check(directory: Path, clients: Sequence[str], revoked: Sequence[str], *, new: bool) -> None:
    if not new and not clients and not revoked:
        raise ConfigError(
            f"{directory} holds keys already, and none is overwritten; add a client by --clients NAME, shut one out by"
            " --revoke NAME, or name another directory"
        )
    for name in clients:
        if not _NAME.fullmatch(name):
            raise ConfigError(f"--clients {name!r}: write letters, digits and _.- only, at most 60")
        if clients.count(name) > 1 or name in (*SERVERS, "actor") or (directory / name).exists():
            raise ConfigError(f"--clients {name}: there are keys of that name; choose another, or --revoke it first")
    known = set() if new else {client.name for client in read_allowed(directory / "replay" / ALLOWED).values()}
    for name in revoked:
        if name not in known - {"learner"}:
            choice = ", ".join(sorted(known - {"learner"})) or "none"
            raise ConfigError(f"--revoke {name}: not a client of {directory}, which are: {choice}")


def _make_identity(parent: Path, name: str) -> bytes:
    """Makes a directory with a new secret key and returns the public one."""
    public, secret = zmq.curve_keypair()
    (parent / name).mkdir(mode=0o700)
    _write(parent / name / f"{name}{SECRET_SUFFIX}", _certificate(public, secret), 0o600)
    return public


def _make_client(parent: Path, keys_directory: Path, name: str) -> bytes:
    public = _make_identity(parent, name)
    for server in SERVERS:
        public_of_server = _public_of(keys_directory / server / f"{server}{SECRET_SUFFIX}")
        _write(parent / name / f"{server}{PUBLIC_SUFFIX}", _certificate(public_of_server), 0o644)
    return public


def _public_of(secret_file: Path) -> bytes:
    from zmq.auth.certs import load_certificate  # noqa: PLC0415  (it brings asyncio with it)

    return load_certificate(secret_file)[0]


def _certificate(public: bytes, secret: bytes | None = None) -> str:
    """Returns a certificate as zmq.auth writes and reads it."""
    lines = ["# The public key of a server of Shoal's.", "curve", f'    public-key = "{public.decode()}"']
    if secret:
        lines[0] = "# A SECRET key of Shoal's: who has it is taken for this process. Give it to nobody."
        lines.append(f'    secret-key = "{secret.decode()}"')
    return "\n".join([*lines, ""])


def _allow_actor(directory: Path, name: str, public: bytes) -> None:
    for server in SERVERS:
        _allow(directory / server, "actor", name, public)


def _allow(server: Path, kind: ClientKind, name: str, public: bytes) -> None:
    file = server / ALLOWED
    _replace(file, f"{file.read_text('utf-8')}{kind} {name} {public.decode()}\n")


def _replace(file: Path, text: str) -> None:
    """Writes a file as a whole: a server may read it at any moment."""
    draft = file.with_name(f".{file.name}.new")
    draft.unlink(missing_ok=True)
    _write(draft, text, 0o644)
    draft.replace(file)


def _write(file: Path, text: str, mode: int) -> None:
    """Writes a new file that has its mode from the first moment on."""
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w", encoding="utf-8") as out:
        os.fchmod(out.fileno(), mode)  # whatever the umask
        out.write(text)


def _made(directory: Path, name: str, public: bytes) -> MadeKey:
    return MadeKey(name, str(directory / name), public.decode())


def _in_words(change: KeysChange) -> str:
    where = change.directory
    lines = [f"made {key.directory}/  (public key {key.public_key})" for key in change.made]
    lines += [f"shut out {name}: off the lists in {where}/replay and {where}/learner" for name in change.revoked]
    if change.made and change.made[0].name in SERVERS:
        lines += [
            "",
            "Each directory is all that its process needs: copy it to that machine, and no other one. Then:",
            f"    replay  --bind tcp://0.0.0.0:5555 --keys {where}/replay",
            f"    learner --bind tcp://0.0.0.0:5556 --replay tcp://REPLAY-HOST:5555 --keys {where}/learner ...",
            f"    actor   --replay tcp://REPLAY-HOST:5555 --weights tcp://LEARNER-HOST:5556 --keys {where}/actor",
            f"    shoal status --replay tcp://REPLAY-HOST:5555 --keys {where}/actor",
        ]
    else:
        lines += [
            "",
            f"Copy {where}/replay/{ALLOWED} and {where}/learner/{ALLOWED} to where those run: no restart is needed.",
        ]
        if change.revoked:
            lines.append("Who is shut out gets weights until its connection ends: start the learner again to be sure.")
    return "\n".join(lines)
