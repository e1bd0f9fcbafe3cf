"""The CURVE keys of one process: its identity, the servers it knows, and, for a server, the clients it admits.

Each process has one flat directory, created by `shoal keys` and passed as `--keys`:

    NAME.key_secret     the process's identity: one secret ZeroMQ CURVE certificate, not readable by other users
    replay.key          public certificates of the servers that the process connects to
    learner.key
    allowed_clients     servers only: the clients they admit, one a line: `actor|learner NAME PUBLIC-KEY`

CURVE keys are 32 bytes, written as 40 characters of Z85 (ZeroMQ's RFC 32).
"""

from __future__ import annotations

import os
import stat
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, get_args

import zmq
from msgspec import Meta
from zmq.utils import z85

from common.errors import ConfigError

SECRET_SUFFIX, PUBLIC_SUFFIX = ".key_secret", ".key"
ALLOW_LIST = "allowed_clients"
DOMAIN = "shoal"
"""ZAP domain of the sockets. Without a domain, libzmq admits everyone who knows the server's public key."""
SAFE_LIBZMQ = (4, 3, 4)
"""Clients without a key can crash or overflow older versions: CVE-2019-13132 (before 4.3.2), CVE-2020-15166,
CVE-2021-20235, CVE-2021-20237 (before 4.3.3), CVE-2020-36400 (4.3.3)."""
MIN_DISTINCT_BYTES = 8
"""A random key has about 30 distinct bytes among its 32; it has fewer than this minimum once in 10^36 keys."""
MAX_FILE_BYTES = 2**20

KeysOption = Annotated[
    str,
    Meta(
        description="Directory of this process's keys, as `shoal keys` creates it. Encrypts connections; servers admit"
        " only clients that they know.",
        extra={"metavar": "DIR"},
    ),
]
ServerName = Literal["replay", "learner"]
ClientKind = Literal["actor", "learner"]
"""Permissions of a client: actors send transitions and request the status, learners do anything."""

PUBLISHED_KEYS = frozenset(
    (
        # zmq_curve(7) and most tutorials: the client's and the server's pair.
        b"Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hID",
        b"D:)Q[IlAW!ahhC2ac:9*A}h:p?([4%wOTJ%JR%cs",
        b"rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7",
        b"JTKVSB%%)wK0E.X)V>+}o?pNmC{O&4W4b!Ni{Lh6",
        # RFC 7748, section 6.1, and NaCl: Alice's and Bob's pair.
        b"Cl.%(A#p:4jqL+Nql<!5?+kXU(+F]rV3l8w9L0ZJ",
        b"G=]<>I7>&bBC>O5V{aj/4zK}kco8}o(.HIuS*=:#",
        b"u8[lWvOhIJDeTmhGmBD]z-+iMck:h&950i$%a]R0",
        b"?K-FIDWS-q^{3m$)bQ2.kz8tAtx<^PT]9RZz?]]t",
    )
)
"""Keys whose secret half is published."""


class AllowedClient(NamedTuple):
    """One client that a server admits."""

    kind: ClientKind
    name: str


@dataclass(frozen=True, slots=True)
class Keys:
    """The checked keys of one process.

    Example:
        keys = load_keys("keys/replay")
        keys.secure_server(socket)
    """

    directory: Path
    name: str
    """Name of the process, as in NAME.key_secret."""
    public: bytes
    secret: bytes = field(repr=False)

    def secure_server(self, socket: zmq.Socket[bytes]) -> None:
        """Configures a socket as a CURVE server, so that only clients whom an Authenticator admits can connect.

        Call it before the socket binds.
        """
        socket.setsockopt(zmq.CURVE_SERVER, 1)
        socket.setsockopt(zmq.CURVE_SECRETKEY, self.secret)
        socket.setsockopt_string(zmq.ZAP_DOMAIN, DOMAIN)
        # Without it, libzmq admits everyone while no authenticator runs.
        socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)

    def secure_client(self, socket: zmq.Socket[bytes], server: ServerName) -> None:
        """Configures a socket as a CURVE client of one server; ConfigError if the server's public key is missing.

        Call it before the socket connects.
        """
        path = self.directory / f"{server}{PUBLIC_SUFFIX}"
        socket.setsockopt(zmq.CURVE_SERVERKEY, _load(path, f"public key of the server '{server}'")[0])
        socket.setsockopt(zmq.CURVE_PUBLICKEY, self.public)
        socket.setsockopt(zmq.CURVE_SECRETKEY, self.secret)


def load_keys(directory: str) -> Keys | None:
    """Reads a process's keys; None for an empty directory name. ConfigError names the fault and what to do."""
    if not directory:
        return None
    require_safe_libzmq("--keys")
    path = Path(directory)
    secrets = sorted(path.glob(f"*{SECRET_SUFFIX}"))
    if len(secrets) != 1:
        raise ConfigError(f"--keys {path} {_why_not_one(path, len(secrets))}")
    (file,) = secrets
    _refuse_readable(file)
    public, secret = _load(file, "this process's secret key")
    if secret is None or zmq.curve_public(secret) != public:
        raise ConfigError(
            f"{file} does not contain the secret key of its public key. Create new keys with `shoal keys`."
        )
    return Keys(path, file.name.removesuffix(SECRET_SUFFIX), public, secret)


def read_clients(path: Path) -> dict[bytes, AllowedClient]:
    """Returns the clients that a server admits, by public key; ConfigError names file, line and what to write."""
    allowed: dict[bytes, AllowedClient] = {}
    for number, line in enumerate(_text(path, "clients that the server admits").splitlines(), 1):
        fields = line.split()
        if not fields or fields[0].startswith("#"):
            continue
        if len(fields) != 3 or fields[0] not in get_args(ClientKind):
            raise ConfigError(f"{path}, line {number}: write 'actor NAME PUBLIC-KEY' or 'learner NAME PUBLIC-KEY'.")
        kind: ClientKind = "learner" if fields[0] == "learner" else "actor"
        key = fields[2].encode("ascii", "replace")
        check_key(key, f"{path}, line {number}")
        if any(client.name == fields[1] for client in allowed.values()):
            raise ConfigError(f"{path}, line {number}: a second client is named '{fields[1]}'. Use unique names.")
        allowed[key] = AllowedClient(kind, fields[1])
    return allowed


def check_key(key: bytes, where: str) -> None:
    """Raises ConfigError for text that is not a key, or a key that protects nothing. The message does not show it."""
    try:
        raw = z85.decode(key) if len(key) == 40 else b""
    except (ValueError, KeyError, struct.error):
        raw = b""
    if len(raw) != 32:
        raise ConfigError(
            f"{where}: not a CURVE key (40 characters of Z85). Copy the key again, or create one with `shoal keys`."
        )
    if key in PUBLISHED_KEYS:
        raise ConfigError(
            f"{where}: a test key from a manual, whose secret is published. Create a key with `shoal keys`."
        )
    if len(set(raw)) < MIN_DISTINCT_BYTES:
        raise ConfigError(f"{where}: zeros or a pattern instead of a random key. Create a key with `shoal keys`.")


def require_safe_libzmq(wanted_by: str) -> None:
    """Raises ConfigError if this libzmq cannot encrypt, or has known vulnerabilities before authentication."""
    version = zmq.zmq_version_info()
    if version < SAFE_LIBZMQ:
        raise ConfigError(
            f"{wanted_by}: libzmq {zmq.zmq_version()} has vulnerabilities that clients without a key can exploit"
            f" (CVE-2020-15166, CVE-2021-20235 and others). Install at least {'.'.join(map(str, SAFE_LIBZMQ))}:"
            " pip install --upgrade pyzmq."
        )
    if not zmq.has("curve"):
        raise ConfigError(
            f"{wanted_by}: libzmq {zmq.zmq_version()} is built without CURVE, so it cannot encrypt. Install a build"
            " with CURVE: pip install --force-reinstall --only-binary :all: pyzmq."
        )


def _why_not_one(path: Path, secrets: int) -> str:
    if not path.is_dir():
        return "is not a directory. Create the keys with `shoal keys`."
    if secrets > 1:
        return f"contains {secrets} secret keys (*{SECRET_SUFFIX}). Give each process a separate directory."
    inside = sorted(one.parent.name for one in path.glob(f"*/*{SECRET_SUFFIX}"))
    if inside:
        return f"contains the keys of several processes ({', '.join(inside)}). Pass one's, as in {path / inside[0]}."
    return f"contains no secret key (*{SECRET_SUFFIX}). Create the keys with `shoal keys`."


def _refuse_readable(file: Path) -> None:
    """Raises ConfigError for a secret that every user of this machine can read.

    A read-only mount is exempt: a container's user does not own the files that are mounted into it.
    """
    if file.stat().st_mode & stat.S_IROTH and not os.statvfs(file).f_flag & os.ST_RDONLY:
        raise ConfigError(f"{file} can be read by every user of this machine. Run chmod 600 {file} or create new keys.")


def _load(path: Path, what: str) -> tuple[bytes, bytes | None]:
    # Imports asyncio, which takes a tenth of a second: only where there are keys.
    from zmq.auth.certs import load_certificate  # noqa: PLC0415

    _text(path, what)
    try:
        public, secret = load_certificate(path)
    except (OSError, ValueError, IndexError) as e:
        raise ConfigError(
            f"{path} ({what}) is not a CURVE certificate. Copy the file again or create new keys with `shoal keys`."
        ) from e
    for key in (public, secret):
        if key is not None:
            check_key(key, str(path))
    return public, secret


def _text(path: Path, what: str) -> str:
    """Returns a small file's text; ConfigError if it cannot be read."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ConfigError(f"{path} ({what}) is too large: at most {MAX_FILE_BYTES} bytes. Copy the file again.")
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as e:
        reason = e.strerror if isinstance(e, OSError) else "it is not text"
        raise ConfigError(f"{path} ({what}) cannot be read: {reason}. Create the file with `shoal keys`.") from e
