"""Looks up the host of a server's address, so that a name that does not exist is not taken for a server that is slow.

libzmq resolves names in the background and reports nothing when that fails. Here a thread of its own asks the system's
resolver, because that may take many seconds and nobody must wait for it.
"""

from __future__ import annotations

import ipaddress
import socket
import threading
import time

AGAIN_S = 10.0
"""Time between two lookups while a server does not answer [s]."""


class HostLookup:
    """Says why the host of one endpoint cannot be reached by name, and which kind of address it has."""

    def __init__(self, endpoint: str) -> None:
        """Starts the first lookup; there is none for an ipc:// endpoint and for a numeric address."""
        host = host_of(endpoint)
        self._host = "" if is_numeric(host) else host
        self._thread: threading.Thread | None = None
        self._looked_at = 0.0
        self.trouble = ""
        """Why the name has no address; empty when it has one, or nothing is known yet."""
        self.needs_ipv6 = False
        """Whether all addresses of the name are IPv6."""
        self.look(time.monotonic())

    def look(self, now: float) -> None:
        """Starts another lookup if the last one is over and `AGAIN_S` old; to be called while no server answers."""
        if not self._host or (self._thread and (self._thread.is_alive() or now - self._looked_at < AGAIN_S)):
            return
        self._looked_at = now
        self._thread = threading.Thread(target=self._resolve, name="host-lookup", daemon=True)
        self._thread.start()

    def _resolve(self) -> None:
        try:
            found = socket.getaddrinfo(self._host, None, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as e:
            reason = e.strerror if isinstance(e, OSError) and e.strerror else str(e)
            self.trouble = f"{self._host} cannot be resolved ({reason}); correct the host's name, or the DNS"
        else:
            self.trouble = ""
            self.needs_ipv6 = all(family == socket.AF_INET6 for family, *_ in found)


def host_of(endpoint: str) -> str:
    """Returns the host of a tcp:// endpoint without brackets; empty for other kinds."""
    scheme, _, address = endpoint.partition("://")
    return address.rpartition(":")[0].strip("[]") if scheme == "tcp" else ""


def is_numeric(host: str) -> bool:
    """Says whether a host needs no lookup: an IPv4 or IPv6 address, `*`, or nothing."""
    return host in ("", "*") or _is_address(host)


def is_ipv6(host: str) -> bool:
    """Says whether a host is a numeric IPv6 address, perhaps with a zone (`fe80::1%eth0`)."""
    return _is_address(host) and ":" in host


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
