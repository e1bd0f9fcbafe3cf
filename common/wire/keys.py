"""The keys of one process: who it is, which servers it knows, and whom it lets in if it is one.

One flat directory a process, made by `shoal keys` and given by `--keys`:

    NAME.key_secret     its own identity: a secret CURVE certificate of ZeroMQ's; one, and not readable by others
    replay.key          public certificates of the servers it talks to
    learner.key
    allowed_clients     servers only: whom they let in, a client a line: `actor|learner NAME PUBLIC-KEY`

CURVE keys are 32 bytes, written as 40 letters of Z85 (ZeroMQ's RFC 32).
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
ALLOWED = "allowed_clients"
DOMAIN = "shoal"
"""What our sockets are guarded as. libzmq lets everyone who knows the server's key into a socket without a domain."""
SAFE_LIBZMQ = (4, 3, 4)
"""Strangers can stop or overrun older ones before they are asked for a key: CVE-2019-13132 (before 4.3.2),
CVE-2020-15166, CVE-2021-20235, CVE-2021-20237 (before 4.3.3), CVE-2020-36400 (4.3.3)."""
LEAST_DISTINCT_BYTES = 8
"""A random key has about 30 distinct bytes among its 32; fewer than these by chance once in 10^36 keys."""
LARGEST_FILE_BYTES = 2**20

KeysOption = Annotated[
    str,
    Meta(
        description="Directory of this process's keys, as `shoal keys` makes it: connections are encrypted, and servers"
        " let in only the clients they know.",
        extra={"metavar": "DIR"},
    ),
]
ServerName = Literal["replay", "learner"]
ClientKind = Literal["actor", "learner"]
"""What a client may do: actors send transitions and ask for the status, learners do anything."""

PUBLISHED = frozenset(
    (
        # zmq_curve(7), and with it most tutorials: the client's and the server's pair.
        b"Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hID",
        b"D:)Q[IlAW!ahhC2ac:9*A}h:p?([4%wOTJ%JR%cs",
        b"rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7",
        b"JTKVSB%%)wK0E.X)V>+}o?pNmC{O&4W4b!Ni{Lh6",
        # RFC 7748, section 6.1, which are NaCl's: Alice's and Bob's pair.
        b"Cl.%(A#p:4jqL+Nql<!5?+kXU(+F]rV3l8w9L0ZJ",
        b"G=]<>I7>&bBC>O5V{aj/4zK}kco8}o(.HIuS*=:#",
        b"u8[lWvOhIJDeTmhGmBD]z-+iMck:h&950i$%a]R0",
        b"?K-FIDWS-q^{3m$)bQ2.kz8tAtx<^PT]9RZz?]]t",
    )
)
"""Keys of which everyone knows the secret half."""


class Client(NamedTuple):
    """One client that a server lets in."""

    kind: ClientKind
    name: str


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of one process, checked."""

    directory: Path
    name: str
    """Its own, as in NAME.key_secret."""
    public: bytes
    secret: bytes = field(repr=False)

    def guard(self, socket: zmq.Socket[bytes]) -> None:
        """Makes a socket one that only clients whom a Gate lets in can talk to; before it binds."""
        socket.setsockopt(zmq.CURVE_SERVER, 1)
        socket.setsockopt(zmq.CURVE_SECRETKEY, self.secret)
        socket.setsockopt_string(zmq.ZAP_DOMAIN, DOMAIN)
        # Without it, libzmq would let everyone in while there is no gate to ask.
        socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)

    def introduce(self, socket: zmq.Socket[bytes], server: ServerName) -> None:
        """Makes a socket one that talks to this server only, and says who it is; before it connects. ConfigError."""
        path = self.directory / f"{server}{PUBLIC_SUFFIX}"
        socket.setsockopt(zmq.CURVE_SERVERKEY, _load(path, f"the public key of the server `{server}`")[0])
        socket.setsockopt(zmq.CURVE_PUBLICKEY, self.public)
        socket.setsockopt(zmq.CURVE_SECRETKEY, self.secret)


def load_keys(directory: str) -> Keys | None:
    """Reads the keys a process was given, None without any; ConfigError names what is wrong and the way out."""
    if not directory:
        return None
    require_safe_libzmq("--keys")
    path = Path(directory)
    secrets = sorted(path.glob(f"*{SECRET_SUFFIX}"))
    if len(secrets) != 1:
        raise ConfigError(f"--keys {path} {_why_not_one(path, len(secrets))}")
    (file,) = secrets
    _refuse_readable(file)
    public, secret = _load(file, "this process's own key")
    if secret is None or zmq.curve_public(secret) != public:
        raise ConfigError(f"{file} holds no secret key that belongs to its public one; make another with `shoal keys`")
    return Keys(path, file.name.removesuffix(SECRET_SUFFIX), public, secret)


def read_allowed(path: Path) -> dict[bytes, Client]:
    """Returns the clients that a server lets in, by public key; ConfigError names file, line and the way out."""
    allowed: dict[bytes, Client] = {}
    for number, line in enumerate(_text(path, "whom the server lets in").splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if len(words) != 3 or words[0] not in get_args(ClientKind):
            raise ConfigError(f"{path}, line {number}: write `actor NAME PUBLIC-KEY`, or learner in place of actor")
        kind: ClientKind = "learner" if words[0] == "learner" else "actor"
        key = words[2].encode("ascii", "replace")
        check_key(key, f"{path}, line {number}")
        if any(client.name == words[1] for client in allowed.values()):
            raise ConfigError(f"{path}, line {number}: a second client named {words[1]}; names tell clients apart")
        allowed[key] = Client(kind, words[1])
    return allowed


def check_key(key: bytes, where: str) -> None:
    """Raises ConfigError for what is no key, or is one that protects nothing. Its letters are not repeated."""
    try:
        raw = z85.decode(key) if len(key) == 40 else b""
    except (ValueError, KeyError, struct.error):
        raw = b""
    if len(raw) != 32:
        raise ConfigError(f"{where}: no CURVE key (40 letters of Z85); copy it again, or make one with `shoal keys`")
    if key in PUBLISHED:
        raise ConfigError(f"{where}: a test key from a manual, whose secret all know; make one with `shoal keys`")
    if len(set(raw)) < LEAST_DISTINCT_BYTES:
        raise ConfigError(f"{where}: zeros or a pattern, and no random key; make one with `shoal keys`")


def require_safe_libzmq(wanted_by: str) -> None:
    """Raises ConfigError where this libzmq cannot encrypt, or cannot be shown to strangers."""
    version = zmq.zmq_version_info()
    if version < SAFE_LIBZMQ:
        raise ConfigError(
            f"{wanted_by}: libzmq {zmq.zmq_version()} has holes that strangers can use (CVE-2020-15166, CVE-2021-20235"
            f" and others); at least {'.'.join(map(str, SAFE_LIBZMQ))} is needed: pip install --upgrade pyzmq"
        )
    if not zmq.has("curve"):
        raise ConfigError(
            f"{wanted_by}: libzmq {zmq.zmq_version()} is built without CURVE, so without encryption; pip install"
            " --force-reinstall --only-binary :all: pyzmq brings one with it"
        )


def _why_not_one(path: Path, secrets: int) -> str:
    if not path.is_dir():
        return "is no directory; `shoal keys` makes the keys"
    if secrets > 1:
        return f"holds {secrets} secret keys (*{SECRET_SUFFIX}); a process has one, so give each a directory of its own"
    inside = sorted(one.parent.name for one in path.glob(f"*/*{SECRET_SUFFIX}"))
    if inside:
        return f"holds the keys of several processes ({', '.join(inside)}); name this one's, as in {path / inside[0]}"
    return f"holds no secret key (*{SECRET_SUFFIX}); `shoal keys` makes the keys"


def _refuse_readable(file: Path) -> None:
    """Raises ConfigError for a secret that every user of this machine can read.

    Not where it is mounted read-only: into a container, whose user owns no file outside.
    """
    if file.stat().st_mode & stat.S_IROTH and not os.statvfs(file).f_flag & os.ST_RDONLY:
        raise ConfigError(f"{file} can be read by every user of this machine; chmod 600 {file}, or make new keys")


def _load(path: Path, what: str) -> tuple[bytes, bytes | None]:
    # It brings asyncio with it, which takes a tenth of a second: only where there are keys.
    from zmq.auth.certs import load_certificate  # noqa: PLC0415

    _text(path, what)
    try:
        public, secret = load_certificate(path)
    except (OSError, ValueError, IndexError) as e:
        raise ConfigError(f"{path} holds no CURVE certificate, {what}; copy it again or make new keys") from e
    for key in (public, secret):
        if key is not None:
            check_key(key, str(path))
    return public, secret


def _text(path: Path, what: str) -> str:
    """Returns a small file's text; ConfigError."""
    try:
        if path.stat().st_size > LARGEST_FILE_BYTES:
            raise ConfigError(f"{path} is larger than any file of keys")
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as e:
        reason = e.strerror if isinstance(e, OSError) else "it is no text"
        raise ConfigError(f"{path} cannot be read ({reason}): {what}; `shoal keys` makes it") from e
