"""The way to Redis: its address, connecting with patience, and its errors in words that tell the way out."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlencode, urlsplit, urlunsplit

import redis
from redis.backoff import NoBackoff
from redis.exceptions import ClusterDownError, MovedError, NoPermissionError
from redis.retry import Retry

from common.errors import ConfigError, PeerError
from common.process.stop import Stop

TIMEOUT_S = 10.0
RETRY_S = 0.25
SAY_EVERY_S = 5.0

_log = logging.getLogger(__name__)


class WaitInterrupted(Exception):  # noqa: N818  (it says what happened, not what went wrong)
    """Says that the process was asked to end while it waited."""


def shown(url: str) -> str:
    """Returns an address without what is secret in it."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "(this)"
    if parts.scheme == "unix":
        return f"unix://{parts.path}"
    if parts.scheme not in ("redis", "rediss"):
        # Whatever it is, what stands where in it is not known.
        return "(this)"
    if "@" in f"{parts.path}{parts.fragment}" or ("@" in parts.query and "@" not in parts.netloc):
        # A password with a slash, a hash or a question mark that is not written as %2F, %23 or %3F.
        return f"{parts.scheme}://(an address that cannot be read)"
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def without_password(url: str) -> tuple[str, str]:
    """Returns an address without its password, and the password; empty where it has none."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return url, ""  # the replay server tells what is wrong with it, without showing it
    query = parse_qs(parts.query)
    password = unquote(parts.password or "") or query.pop("password", [""])[0]
    if not password:
        return url, ""
    user, _, host = parts.netloc.rpartition("@")
    user = user.partition(":")[0]
    netloc = f"{user}@{host}" if user else host
    return urlunsplit(parts._replace(netloc=netloc, query=urlencode(query, doseq=True))), password


def make_client(url: str, client_name: str, password: str = "", ca_file: str = "") -> redis.Redis:
    """Returns a client that connects at its first use; ConfigError when the address cannot be one.

    password: for a URL that has none. ca_file: what the certificate of a rediss:// server is checked against.
    It never tries a command again by itself: only the owner of a transaction knows that it is idempotent.
    """
    if ca_file and not url.startswith("rediss://"):
        raise ConfigError(
            f"--redis-ca-file with {shown(url)}: only rediss:// is encrypted; write rediss://, or leave it"
        )
    if ca_file and not Path(ca_file).is_file():
        raise ConfigError(f"--redis-ca-file {ca_file} is no file; name the certificates of who signed the server's")
    try:
        client = redis.Redis.from_url(
            url,
            client_name=client_name,
            password=password or None,
            protocol=2,
            retry=Retry(NoBackoff(), 0),
            socket_timeout=TIMEOUT_S,
            socket_connect_timeout=TIMEOUT_S,
            **({"ssl_ca_certs": ca_file} if ca_file else {}),
        )
        # An option that there is not is noticed here, not at the first use.
        client.connection_pool.make_connection()
    except (ValueError, TypeError, redis.RedisError) as e:
        raise ConfigError(
            f"--redis {shown(url)}: not an address of a Redis; write redis://HOST:PORT/DB, rediss://... or"
            " unix:///PATH, or none"
        ) from e
    return client


def wait_for(client: redis.Redis, url: str, wait_s: float, stop: Stop, progress: Callable[[str], None]) -> None:
    """Waits until Redis answers; PeerError after `wait_s`, ConfigError when it turns us away, WaitInterrupted."""
    deadline, say_at = time.monotonic() + wait_s, time.monotonic()
    while True:
        try:
            client.ping()
        except redis.AuthenticationError as e:
            raise ConfigError(
                f"--redis {shown(url)} wants a password or refuses the given one; name a file that holds it by"
                " --redis-password-file, or write it into the address in the variable SHOAL_REDIS,"
                " redis://USER:PASSWORD@HOST:PORT"
            ) from e
        except redis.RedisError as e:
            reason = in_words(e)
            if "DB index" in reason:
                raise ConfigError(
                    f"--redis {shown(url)}: this Redis has no database of that number ({reason}); name one that it has,"
                    " as in redis://HOST:PORT/0, or raise `databases` in its configuration"
                ) from e
            if "CERTIFICATE_VERIFY_FAILED" in reason:
                raise ConfigError(
                    f"--redis {shown(url)}: its certificate is not trusted ({reason}); name the certificates of who"
                    " signed it by --redis-ca-file, and the server as they do"
                ) from e
            if time.monotonic() > deadline:
                raise PeerError(
                    f"no Redis serves at {shown(url)} after {wait_s:g} s: {reason}; start one (redis-server), correct"
                    " --redis, or keep transitions in RAM only with --redis none"
                ) from e
        else:
            return
        progress(f"waiting for Redis at {shown(url)}: {reason}")
        if time.monotonic() >= say_at:
            say_at += SAY_EVERY_S
            _log.warning("waiting for Redis address=%s reason=%s", shown(url), reason)
        if stop.wait(RETRY_S):
            raise WaitInterrupted


def refuse_unfit(client: redis.Redis, url: str, *, fsync: bool) -> None:
    """Raises ConfigError when this Redis would lose chunks that it has taken."""
    try:
        info = client.info("everything")
    except NoPermissionError as e:
        _log.warning("cannot see how Redis is set up: %s", e)
        return
    if info.get("role") == "slave" and info.get("slave_read_only"):
        raise ConfigError(
            f"--redis {shown(url)} is a read-only replica of {info.get('master_host')}:{info.get('master_port')};"
            " give the address of its primary"
        )
    policy = str(info.get("maxmemory_policy", ""))
    if info.get("maxmemory") and policy.startswith("allkeys"):
        raise ConfigError(
            f"--redis {shown(url)} would drop transitions when full (maxmemory-policy {policy}); set it to noeviction"
        )
    if not fsync and not info.get("aof_enabled"):
        _log.warning(
            "Redis keeps no append-only file: what it is killed with is lost since its last snapshot; start it with"
            " --appendonly yes"
        )
    if fsync and not info.get("aof_enabled"):
        raise ConfigError(
            f"--durability fsync: {shown(url)} keeps no append-only file; start it with --appendonly yes, or use"
            " --durability redis"
        )
    if fsync:
        try:
            client.execute_command("WAITAOF", 0, 0, 1)  # type: ignore[no-untyped-call]
        except redis.ResponseError as e:
            raise ConfigError(
                f"--durability fsync needs Redis 7.2 or any Valkey, for WAITAOF ({e}); use --durability redis"
            ) from e


def refuse_second(client: redis.Redis, client_name: str, name: str, wait_s: float, stop: Stop) -> None:
    """Raises ConfigError while another live server uses the same name: two would overwrite each other's chunks.

    Redis knows its connections, so a server that was killed is not in the way for longer than its socket lasts.
    """
    deadline = time.monotonic() + wait_s
    while True:
        try:
            own, clients = str(client.client_id()), client.client_list()
        except NoPermissionError as e:
            _log.warning("cannot see whether another server uses --name %s: %s", name, e)
            return
        others = [entry for entry in clients if entry.get("name") == client_name and entry.get("id") != own]
        if not others:
            return
        if time.monotonic() > deadline:
            raise ConfigError(
                f"--name {name} is in use by another replay server at this Redis (from {others[0].get('addr')});"
                " stop it, or choose another --name"
            )
        if stop.wait(RETRY_S):
            raise WaitInterrupted


@contextlib.contextmanager
def asking(url: str) -> Iterator[None]:
    """Turns Redis' errors into PeerError."""
    try:
        yield
    except redis.RedisError as e:
        raise PeerError(f"Redis at {shown(url)}: {in_words(e)}") from e


def in_words(error: redis.RedisError) -> str:
    """Returns what is wrong with Redis, and what helps where something does."""
    text = str(error)
    if isinstance(error, redis.BusyLoadingError):
        return "it is still loading its data"
    if isinstance(error, redis.OutOfMemoryError):
        return "it is out of memory; raise its maxmemory or lower the replay's capacity"
    if isinstance(error, redis.ReadOnlyError):
        return "it is a read-only replica; give the address of its primary"
    if isinstance(error, MovedError | ClusterDownError):
        return f"it is one node of a Redis Cluster ({text}); give the address of a Redis that is not a cluster"
    if isinstance(error, redis.TimeoutError):
        return f"it does not answer ({text})"
    return text or type(error).__name__
