"""Name resolution of a server's host, so that a host name that does not exist is reported as such.

libzmq resolves names in the background and does not report failures. A separate thread asks the system's resolver,
because the resolver may take many seconds.
"""

from __future__ import annotations

import ipaddress
import socket
import threading
import time

LOOKUP_PERIOD_S = 10.0
"""Time between two lookups while a server does not answer [s]."""


class HostLookup:
    """Resolves the host of one endpoint: reports why the name has no address, or which kind of address it has."""

    def __init__(self, endpoint: str) -> None:
        """Starts the first lookup; ipc:// endpoints and numeric addresses need none."""
        host = host_of(endpoint)
        self._host = "" if is_numeric(host) else host
        self._thread: threading.Thread | None = None
        self._started_at = 0.0
        self.error = ""
        """Why the name has no address; empty if it has one, or while the lookup runs."""
        self.needs_ipv6 = False
        """Whether all addresses of the name are IPv6."""
        self.poll(time.monotonic())

    def poll(self, now: float) -> None:
        """Starts another lookup if the last one is `LOOKUP_PERIOD_S` old and over; call it while no server answers."""
        if not self._host or (self._thread and (self._thread.is_alive() or now - self._started_at < LOOKUP_PERIOD_S)):
            return
        self._started_at = now
        self._thread = threading.Thread(target=self._resolve, name="host-lookup", daemon=True)
        self._thread.start()

    def _resolve(self) -> None:
        try:
            found = socket.getaddrinfo(self._host, None, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as e:
            reason = e.strerror if isinstance(e, OSError) and e.strerror else str(e)
            self.error = f"{self._host} cannot be resolved ({reason}); correct the host name, or the DNS"
        else:
            self.error = ""
            self.needs_ipv6 = all(family == socket.AF_INET6 for family, *_ in found)


def host_of(endpoint: str) -> str:
    """Returns the host of a tcp:// endpoint without brackets; empty for other endpoints."""
    scheme, _, address = endpoint.partition("://")
    return address.rpartition(":")[0].strip("[]") if scheme == "tcp" else ""


def is_numeric(host: str) -> bool:
    """Returns whether a host needs no lookup: an IPv4 or IPv6 address, `*`, or an empty text."""
    return host in ("", "*") or _is_address(host)


def is_ipv6(host: str) -> bool:
    """Returns whether a host is a numeric IPv6 address, with or without a zone (`fe80::1%eth0`)."""
    return _is_address(host) and ":" in host


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
