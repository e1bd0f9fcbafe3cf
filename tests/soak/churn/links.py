"""The network of a run on one machine: a proxy for each connection between its roles."""

from __future__ import annotations

from pathlib import Path

from tests.system.proxy import Proxy

SLOW_BYTES_PER_S = 100_000.0
LOSS = 0.05
"""Share of reads that are late on a lossy link."""
ROUTES = {"actor-replay": "replay", "learner-replay": "replay", "actor-weights": "weights"}
"""Name of each link: the role that connects and its option; and the socket of the run that it leads to."""
HARMS = ("stalled", "forgotten", "refused", "slow", "lossy")


class Link:
    """One connection that can be disturbed."""

    def __init__(self, name: str, proxy: Proxy) -> None:
        self.name, self._proxy = name, proxy

    def harm(self, how: str) -> None:
        """Disturbs the link in one of the ways of HARMS.

        stalled: nothing goes through and nobody hears of it. forgotten: its connections are half-open, new ones work.
        refused: its connections end and new ones are refused.
        """
        match how:
            case "stalled":
                self._proxy.hold()
            case "forgotten":
                self._proxy.forget()
            case "refused":
                self._proxy.refuse()
            case "slow":
                self._proxy.bytes_per_s = SLOW_BYTES_PER_S
            case "lossy":
                self._proxy.loss = LOSS

    def heal(self) -> None:
        """Ends the disturbance."""
        self._proxy.bytes_per_s = self._proxy.loss = 0.0
        self._proxy.heal()

    def close(self) -> None:
        self._proxy.close()


def make_links(directory: Path, sockets: Path) -> list[Link]:
    """Starts the proxies, whose sockets are in `directory`; sockets: the directory of the run's own sockets."""
    directory.mkdir()
    return [Link(name, Proxy(sockets / target, at=directory / name)) for name, target in ROUTES.items()]
