"""The connection to Redis: its address, the wait until it answers, and its errors with what to do about them."""

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
"""Timeout of connecting and of one command [s]."""
RETRY_PERIOD_S = 0.25
"""Time between two attempts to reach Redis [s]."""
LOG_PERIOD_S = 5.0
"""Time between two log lines of one wait [s]."""

_log = logging.getLogger(__name__)


class WaitInterrupted(Exception):  # noqa: N818  (not an error: the process was asked to end)
    """Raised when the process is asked to end while it waits."""


def redacted(url: str) -> str:
    """Returns an address without its secrets, for messages."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "(this)"
    if parts.scheme == "unix":
        return f"unix://{parts.path}"
    if parts.scheme not in ("redis", "rediss"):
        # In an unknown scheme the password may be anywhere.
        return "(this)"
    if "@" in f"{parts.path}{parts.fragment}" or ("@" in parts.query and "@" not in parts.netloc):
        # A password with a slash, a hash or a question mark that is not escaped as %2F, %23 or %3F.
        return f"{parts.scheme}://(an address that cannot be read)"
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def without_password(url: str) -> tuple[str, str]:
    """Returns an address without its password, and the password; empty if there is none."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return url, ""  # the replay server reports what is wrong with it, without its secrets
    query = parse_qs(parts.query)
    password = unquote(parts.password or "") or query.pop("password", [""])[0]
    if not password:
        return url, ""
    user, _, host = parts.netloc.rpartition("@")
    user = user.partition(":")[0]
    netloc = f"{user}@{host}" if user else host
    return urlunsplit(parts._replace(netloc=netloc, query=urlencode(query, doseq=True))), password


def make_client(url: str, client_name: str, password: str = "", ca_file: str = "") -> redis.Redis:
    """Returns a client that connects at its first use; ConfigError when the address is not valid.

    password: for a URL without one. ca_file: CA file that the certificate of a rediss:// server is checked against.
    The client never retries a command: only the owner of a transaction knows that it is idempotent.
    """
    if ca_file and not url.startswith("rediss://"):
        raise ConfigError(
            f"--redis-ca-file with {redacted(url)}: only rediss:// is encrypted; use it, or omit --redis-ca-file."
        )
    if ca_file and not Path(ca_file).is_file():
        raise ConfigError(f"--redis-ca-file {ca_file} is not a file; pass the CA certificate that signed the server's.")
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
        # An unknown option in the address is an error here, not at the first use.
        client.connection_pool.make_connection()
    except (ValueError, TypeError, redis.RedisError) as e:
        raise ConfigError(
            f"--redis {redacted(url)} is not an address of a Redis; write redis://HOST:PORT/DB, rediss://..., unix:///PATH"
            " or none."
        ) from e
    return client


def wait_for_redis(client: redis.Redis, url: str, wait_s: float, stop: Stop, progress: Callable[[str], None]) -> None:
    """Waits until Redis answers; PeerError after `wait_s`, ConfigError when it rejects the login, WaitInterrupted."""
    deadline, log_at = time.monotonic() + wait_s, time.monotonic()
    while True:
        try:
            client.ping()
        except redis.AuthenticationError as e:
            raise ConfigError(
                f"--redis {redacted(url)} requires a password or rejects the given one; pass a file that contains it"
                " with --redis-password-file, or put it into the address in the environment variable SHOAL_REDIS,"
                " redis://USER:PASSWORD@HOST:PORT."
            ) from e
        except redis.RedisError as e:
            reason = error_text(e)
            if "DB index" in reason:
                raise ConfigError(
                    f"--redis {redacted(url)}: this Redis does not have a database of that number ({reason}); choose"
                    " another, as in redis://HOST:PORT/0, or raise `databases` in its configuration."
                ) from e
            if "CERTIFICATE_VERIFY_FAILED" in reason:
                raise ConfigError(
                    f"--redis {redacted(url)}: its certificate is not trusted ({reason}); pass the CA file with"
                    " --redis-ca-file and use the host name in the certificate."
                ) from e
            if time.monotonic() > deadline:
                raise PeerError(
                    f"Redis at {redacted(url)} does not answer after {wait_s:g} s: {reason}; start one (redis-server),"
                    " correct --redis, or store transitions in RAM only with --redis none."
                ) from e
        else:
            return
        progress(f"waiting for Redis at {redacted(url)}: {reason}")
        if time.monotonic() >= log_at:
            log_at += LOG_PERIOD_S
            _log.warning("waiting for Redis address=%s reason=%s", redacted(url), reason)
        if stop.wait(RETRY_PERIOD_S):
            raise WaitInterrupted


def refuse_unsafe(client: redis.Redis, url: str, *, fsync: bool) -> None:
    """Raises ConfigError when this Redis would lose chunks that it has acknowledged."""
    try:
        info = client.info("everything")
    except NoPermissionError as e:
        _log.warning("Redis configuration not checked reason=%s", e)
        return
    if info.get("role") == "slave" and info.get("slave_read_only"):
        raise ConfigError(
            f"--redis {redacted(url)} is a read-only replica of {info.get('master_host')}:{info.get('master_port')};"
            " pass the address of its primary."
        )
    policy = str(info.get("maxmemory_policy", ""))
    if info.get("maxmemory") and policy.startswith("allkeys"):
        raise ConfigError(
            f"--redis {redacted(url)} would drop transitions when full (maxmemory-policy {policy}); set it to"
            " noeviction."
        )
    if not fsync and not info.get("aof_enabled"):
        _log.warning(
            "Redis does not write an append-only file: if it is killed, everything since its last snapshot is lost;"
            " start it with --appendonly yes"
        )
    if fsync and not info.get("aof_enabled"):
        raise ConfigError(
            f"--durability fsync: {redacted(url)} does not write an append-only file; start it with --appendonly yes,"
            " or use --durability redis."
        )
    if fsync:
        try:
            client.execute_command("WAITAOF", 0, 0, 1)  # type: ignore[no-untyped-call]
        except redis.ResponseError as e:
            raise ConfigError(
                f"--durability fsync needs Redis 7.2 or any Valkey, for WAITAOF ({e}); use --durability redis."
            ) from e


def refuse_second_server(client: redis.Redis, client_name: str, name: str, wait_s: float, stop: Stop) -> None:
    """Raises ConfigError while another live server uses the same name: two would overwrite each other's chunks.

    Redis lists its connections, so a killed server blocks the name only until its socket is closed, at most `wait_s`.
    """
    deadline = time.monotonic() + wait_s
    while True:
        try:
            client_id, clients = str(client.client_id()), client.client_list()
        except NoPermissionError as e:
            _log.warning("use of --name by another server not checked name=%s reason=%s", name, e)
            return
        others = [entry for entry in clients if entry.get("name") == client_name and entry.get("id") != client_id]
        if not others:
            return
        if time.monotonic() > deadline:
            raise ConfigError(
                f"--name {name} is in use by another replay server at this Redis (from {others[0].get('addr')});"
                " stop it, or choose another --name."
            )
        if stop.wait(RETRY_PERIOD_S):
            raise WaitInterrupted


@contextlib.contextmanager
def redis_errors_as_peer_errors(url: str) -> Iterator[None]:
    """Raises PeerError instead of Redis' own errors."""
    try:
        yield
    except redis.RedisError as e:
        raise PeerError(f"Redis at {redacted(url)}: {error_text(e)}") from e


def error_text(error: redis.RedisError) -> str:
    """Returns what is wrong with Redis, and what to do about it where that is known."""
    text = str(error)
    if isinstance(error, redis.BusyLoadingError):
        return "it is still loading its data"
    if isinstance(error, redis.OutOfMemoryError):
        return "it is out of memory; raise its maxmemory or lower the replay's capacity"
    if isinstance(error, redis.ReadOnlyError):
        return "it is a read-only replica; pass the address of its primary"
    if isinstance(error, MovedError | ClusterDownError):
        return f"it is one node of a Redis Cluster ({text}); pass the address of a Redis that is not a cluster"
    if isinstance(error, redis.TimeoutError):
        return f"it does not answer ({text})"
    return text or type(error).__name__
