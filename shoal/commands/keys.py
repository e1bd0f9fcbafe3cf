"""`shoal keys`: creates the CURVE keys of a run's processes, adds clients, and revokes them.

    DIR/replay/     replay.key_secret, allowed_clients                  replay --keys DIR/replay
    DIR/learner/    learner.key_secret, allowed_clients, replay.key     learner --keys DIR/learner
    DIR/actor/      actor.key_secret, replay.key, learner.key           actor --keys DIR/actor, shoal status --keys ...
    DIR/NAME/       the same for each further client

Each directory contains exactly what one process needs; copy nothing else to its machine. A new directory is written
under a temporary name and renamed, so that it appears complete or not at all.
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
from common.process.shell_command import shell_command
from common.wire.keys import (
    ALLOW_LIST,
    PUBLIC_SUFFIX,
    SECRET_SUFFIX,
    ClientKind,
    read_clients,
    require_safe_libzmq,
)

SERVERS = ("replay", "learner")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,59}")
_ALLOWED_HEADER = """\
# Clients that this server admits, one a line: actor|learner NAME PUBLIC-KEY
# The server reads changes at once. A removed client is refused from its next connection on.
"""


class KeysConfig(msgspec.Struct, frozen=True):
    """Settings of `shoal keys`."""

    clients: Annotated[
        tuple[str, ...],
        Meta(
            description="Create the keys of a further client with this name, and add it to the servers' lists; can be"
            " repeated.",
            extra={"metavar": "NAME"},
        ),
    ] = ()
    n: Annotated[
        int,
        Meta(
            ge=0,
            le=4096,
            description="Create keys for further clients, actor-1 to actor-N, one for each node [clients].",
        ),
    ] = 0
    revoke: Annotated[
        tuple[str, ...],
        Meta(
            description="Remove a client from the servers' lists and delete its keys in DIR; can be repeated.",
            extra={"metavar": "NAME"},
        ),
    ] = ()
    json: Annotated[bool, Meta(description="Print the changes as JSON.")] = False


class CreatedKey(msgspec.Struct, frozen=True):
    """The keys of one process, without the secret part."""

    name: str
    directory: str
    public_key: str


class KeysChange(msgspec.Struct, frozen=True):
    """The changes that `shoal keys` made."""

    directory: str
    made: tuple[CreatedKey, ...]
    revoked: tuple[str, ...]
    allowed: dict[str, list[str]]
    """Names of the clients that each server admits, by server."""


@click.command("keys")
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@command.options(KeysConfig)
def keys(directory: Path, **values: object) -> None:
    """Create the keys that encrypt and restrict a run's network.

    Writes one directory for each process into DIR. Copy each to the machine of its process and pass it there as --keys.
    Existing keys are never overwritten: --clients adds a client, --revoke removes one.

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
        command.result(_as_text(change))


def change_keys(directory: Path, clients: Sequence[str], revoked: Sequence[str]) -> KeysChange:
    """Creates missing keys, adds clients, revokes clients; raises ConfigError if it must leave everything unchanged."""
    new = not _contains_keys(directory)
    _check(directory, clients, revoked, new=new)
    try:
        made = [make_keys(directory, clients)] if new else [add_client(directory, name) for name in clients]
        for name in revoked:
            revoke_client(directory, name)
    except OSError as e:
        raise ConfigError(
            f"{directory} cannot be written ({e.strerror}). Name a directory that you can write to."
        ) from e
    allowed = {
        server: sorted(client.name for client in read_clients(directory / server / ALLOW_LIST).values())
        for server in SERVERS
    }
    return KeysChange(str(directory), tuple(key for group in made for key in group), tuple(revoked), allowed)


def make_keys(directory: Path, clients: Sequence[str]) -> list[CreatedKey]:
    """Creates the keys of both servers, of `actor` and of further clients: all of them or none."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{directory.name}-", dir=directory.parent))  # its mode is 0700
    try:
        public = {server: _make_identity(draft, server) for server in SERVERS}
        _write(draft / "learner" / f"replay{PUBLIC_SUFFIX}", _certificate(public["replay"]), 0o644)
        for server in SERVERS:
            _write(draft / server / ALLOW_LIST, _ALLOWED_HEADER, 0o644)
        _allow(draft / "replay", "learner", "learner", public["learner"])
        for name in ("actor", *clients):
            public[name] = _make_client(draft, draft, name)
            _allow_actor(draft, name, public[name])
        draft.rename(directory)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return [_made(directory, name, key) for name, key in public.items()]


def add_client(directory: Path, name: str) -> list[CreatedKey]:
    """Creates the keys of one more client and adds it to the lists of both servers."""
    draft = Path(tempfile.mkdtemp(prefix=".client-", dir=directory))
    try:
        public = _make_client(draft, directory, name)
        (draft / name).rename(directory / name)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    _allow_actor(directory, name, public)
    return [_made(directory, name, public)]


def revoke_client(directory: Path, name: str) -> None:
    """Removes a client from the lists of both servers, then deletes its keys."""
    for server in SERVERS:
        file = directory / server / ALLOW_LIST
        lines = file.read_text("utf-8").splitlines(keepends=True)
        remaining = [line for line in lines if line.startswith("#") or line.split()[1:2] != [name]]
        _replace(file, "".join(remaining))
    shutil.rmtree(directory / name, ignore_errors=True)


def _contains_keys(directory: Path) -> bool:
    """Returns whether a directory contains keys; raises ConfigError if it contains something else."""
    try:
        found = sorted(one.name for one in directory.iterdir())
    except FileNotFoundError:
        return False
    except OSError as e:
        raise ConfigError(f"{directory}: {e.strerror}. Name a directory for the keys.") from e
    if found and not all((directory / server / ALLOW_LIST).exists() for server in SERVERS):
        raise ConfigError(f"{directory} contains other files ({', '.join(found[:3])}). Name a new or empty directory.")
    return bool(found)


def _check(directory: Path, clients: Sequence[str], revoked: Sequence[str], *, new: bool) -> None:
    if not new and not clients and not revoked:
        raise ConfigError(
            f"{directory} already contains keys, which are never overwritten. Add a client with --clients NAME, remove"
            " one with --revoke NAME, or name another directory."
        )
    for name in clients:
        if not _NAME.fullmatch(name):
            raise ConfigError(
                f"--clients {name!r} is not a valid name. Use at most 60 letters, digits and the characters _.-"
            )
        if name in (*SERVERS, "actor"):
            raise ConfigError(f"--clients {name}: the name is reserved for a process of Shoal. Choose another name.")
        if clients.count(name) > 1:
            raise ConfigError(f"--clients {name}: the name is given more than once. Give each client another name.")
        if (directory / name).exists():
            raise ConfigError(f"--clients {name}: keys of that name exist. Choose another name, or --revoke it first.")
    known = set() if new else {client.name for client in read_clients(directory / "replay" / ALLOW_LIST).values()}
    for name in revoked:
        if name not in known - {"learner"}:
            choice = ", ".join(sorted(known - {"learner"})) or "none"
            raise ConfigError(f"--revoke {name} is not a client in {directory}. Clients: {choice}.")


def _make_identity(parent: Path, name: str) -> bytes:
    """Creates a directory with a new secret key and returns the public key."""
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
    from zmq.auth.certs import load_certificate  # noqa: PLC0415  (imports asyncio)

    return load_certificate(secret_file)[0]


def _certificate(public: bytes, secret: bytes | None = None) -> str:
    """Returns a certificate as zmq.auth writes and reads it."""
    lines = ["# Public key of a Shoal server.", "curve", f'    public-key = "{public.decode()}"']
    if secret:
        lines[0] = "# SECRET key of a Shoal process: whoever has it can act as this process. Do not share it."
        lines.append(f'    secret-key = "{secret.decode()}"')
    return "\n".join([*lines, ""])


def _allow_actor(directory: Path, name: str, public: bytes) -> None:
    for server in SERVERS:
        _allow(directory / server, "actor", name, public)


def _allow(server: Path, kind: ClientKind, name: str, public: bytes) -> None:
    file = server / ALLOW_LIST
    _replace(file, f"{file.read_text('utf-8')}{kind} {name} {public.decode()}\n")


def _replace(file: Path, text: str) -> None:
    """Replaces a file atomically, because a server may read it at any moment."""
    draft = file.with_name(f".{file.name}.new")
    draft.unlink(missing_ok=True)
    _write(draft, text, 0o644)
    draft.replace(file)


def _write(file: Path, text: str, mode: int) -> None:
    """Writes a new file that is created with its final mode."""
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w", encoding="utf-8") as out:
        os.fchmod(out.fileno(), mode)  # whatever the umask
        out.write(text)


def _made(directory: Path, name: str, public: bytes) -> CreatedKey:
    return CreatedKey(name, str(directory / name), public.decode())


def _as_text(change: KeysChange) -> str:
    where = change.directory
    replay, learner, actor = (shell_command(f"{where}/{name}") for name in ("replay", "learner", "actor"))
    lines = [f"created {key.directory}/  (public key {key.public_key})" for key in change.made]
    lines += [
        f"revoked {name}: removed from the lists in {where}/replay and {where}/learner" for name in change.revoked
    ]
    if change.made and change.made[0].name in SERVERS:
        lines += [
            "",
            "Copy each directory to the machine of its process and nowhere else. Then run:",
            f"    replay  --bind tcp://0.0.0.0:5555 --keys {replay}",
            f"    learner --bind tcp://0.0.0.0:5556 --replay tcp://REPLAY-HOST:5555 --keys {learner} ...",
            f"    actor   --replay tcp://REPLAY-HOST:5555 --weights tcp://LEARNER-HOST:5556 --keys {actor}",
            f"    shoal status --replay tcp://REPLAY-HOST:5555 --keys {actor}",
        ]
    else:
        lines += [
            "",
            f"Copy {where}/replay/{ALLOW_LIST} and {where}/learner/{ALLOW_LIST} to the servers. No restart is needed.",
        ]
        if change.revoked:
            lines.append(
                "A revoked client receives weights until its connection ends. Restart the learner to end it now."
            )
    return "\n".join(lines)
