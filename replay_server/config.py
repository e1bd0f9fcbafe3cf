"""Settings of a replay server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from common.errors import ConfigError
from common.process.durations import Seconds
from common.run.run import LEAST_POSITIVE, NonNegative
from common.wire.keys import KeysOption
from common.wire.sockets import require_local
from replay_server.settings import Durability, ReplaySettings

NO_REDIS = "none"


class ReplayConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One replay server: where it listens, what keeps its chunks, and what it sets in place of the run's own values."""

    bind: Annotated[str, Meta(description="Address for actors and learners.")] = "tcp://127.0.0.1:5555"
    redis: Annotated[
        str,
        Meta(
            description="Redis or Valkey that keeps the chunks: redis://, rediss:// or unix:// URL; none = RAM only."
            " Give passwords by --redis-password-file or SHOAL_REDIS: a command line is seen by all.",
            extra={"metavar": "URL", "may_hold_password": True},
        ),
    ] = "redis://127.0.0.1:6379/0"
    redis_password_file: Annotated[
        str,
        Meta(description="File that holds the password of Redis, for a URL without one.", extra={"metavar": "FILE"}),
    ] = ""
    redis_ca_file: Annotated[
        str,
        Meta(
            description="File of certificates that a rediss:// server's is checked against. Default: the system's.",
            extra={"metavar": "FILE"},
        ),
    ] = ""
    durability: Annotated[
        Literal["auto", "ram", "redis", "fsync"],
        Meta(
            description="When a chunk is acknowledged: it is in RAM; Redis has it; Redis has it on disk (WAITAOF)."
            " auto = redis, or ram with --redis none."
        ),
    ] = "auto"
    name: Annotated[
        str, Meta(pattern=r"^[A-Za-z0-9_.-]{1,64}\Z", description="Name of this replay's keys in Redis.")
    ] = "default"
    fresh: Annotated[bool, Meta(description="Discard the transitions that Redis holds under this name.")] = False
    redis_wait: Annotated[Seconds, Meta(description="Longest wait for Redis at the start.")] = 60.0
    capacity: Annotated[int, Meta(ge=0, le=2**31, description="Transitions held; 0 = as the run says.")] = 0
    samples_per_insert: Annotated[
        NonNegative, Meta(description="Samples per transition inserted; 0 = as the run says.")
    ] = 0.0
    seed: Annotated[int, Meta(ge=0, lt=2**32, description="Seed of the sampler.")] = 0
    keys: KeysOption = ""
    insecure: Annotated[
        bool,
        Meta(description="Allow a --bind address that others can reach without keys: anyone there may write and read."),
    ] = False
    audit: Annotated[
        str,
        Meta(description="Directory to note in what was stored, for `shoal audit`.", extra={"metavar": "DIR"}),
    ] = ""
    peer_memory: Annotated[
        int,
        Meta(
            # What may rightly be on its way, and what an allocator holds back, are no attack.
            ge=128,
            le=2**20,
            description="MiB that peers' messages may take before they are whole; beyond, all connections are ended,"
            " which frees them, and peers come back. TCP, on Linux.",
        ),
    ] = 1_024
    metrics_host: Annotated[str, Meta(description="Address of the HTTP port.")] = "127.0.0.1"
    metrics_port: Annotated[
        int, Meta(ge=0, le=65_535, description="Port of /metrics, /healthz and /readyz; 0 = any free one.")
    ] = 9101
    parent: Annotated[int, Meta(ge=0, description="End when this process ends.", extra={"hidden": True})] = 0

    @property
    def level(self) -> Durability:
        """The durability with `auto` resolved."""
        if self.durability != "auto":
            return self.durability
        return "ram" if self.redis == NO_REDIS else "redis"

    @property
    def redis_password(self) -> str:
        """Reads the password of Redis; empty when no file was named. ConfigError when it holds none."""
        if not self.redis_password_file:
            return ""
        try:
            password = Path(self.redis_password_file).read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError) as e:
            raise ConfigError(f"--redis-password-file {self.redis_password_file} cannot be read: {e}") from e
        if not password:
            raise ConfigError(f"--redis-password-file {self.redis_password_file} is empty; write the password into it")
        return password

    def check(self) -> None:
        """Raises ConfigError for settings that contradict each other or open the server to strangers."""
        if self.redis == NO_REDIS and self.level != "ram":
            raise ConfigError(f"--durability {self.durability} needs a Redis; give --redis URL, or --durability ram")
        if 0 < self.samples_per_insert < LEAST_POSITIVE:
            raise ConfigError(
                f"--samples-per-insert {self.samples_per_insert:g}: expected 0 or at least {LEAST_POSITIVE:g}"
            )
        require_local(self.bind, "--bind", insecure=self.insecure, keys=bool(self.keys))

    def settings(self, metrics_url: str) -> ReplaySettings:
        """Returns what the replay itself needs of this."""
        return ReplaySettings(self.level, self.capacity, self.samples_per_insert, self.seed, metrics_url)
