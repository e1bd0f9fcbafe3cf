"""The options of a replay server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from common.errors import ConfigError
from common.process.durations import Seconds
from common.run.run import MIN_POSITIVE, NonNegative, ReplaySpec
from common.wire.keys import KeysOption
from common.wire.sockets import require_local

Durability = Literal["ram", "redis", "fsync"]
"""Where a chunk is stored before it is acknowledged: in RAM, in Redis, or on the disk of Redis."""
NO_REDIS = "none"


class ReplayConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One replay server: its addresses, the log of its chunks, and the settings it overrides in any run."""

    bind: Annotated[str, Meta(description="Address that actors and learners connect to.")] = "tcp://127.0.0.1:5555"
    redis: Annotated[
        str,
        Meta(
            description="Redis or Valkey that stores the chunks: a redis://, rediss:// or unix:// URL; none = RAM only."
            " Pass passwords with --redis-password-file or SHOAL_REDIS: every user can read a command line.",
            extra={"metavar": "URL", "may_hold_password": True},
        ),
    ] = "redis://127.0.0.1:6379/0"
    redis_password_file: Annotated[
        str,
        Meta(description="File that contains the password of Redis, for a URL without one.", extra={"metavar": "FILE"}),
    ] = ""
    redis_ca_file: Annotated[
        str,
        Meta(
            description="CA file that the certificate of a rediss:// server is checked against; default: the system's.",
            extra={"metavar": "FILE"},
        ),
    ] = ""
    durability: Annotated[
        Literal["auto", "ram", "redis", "fsync"],
        Meta(
            description="Acknowledge a chunk once it is in RAM (ram), Redis has it (redis), or Redis has it on disk"
            " (fsync, by WAITAOF); auto = redis, or ram with --redis none."
        ),
    ] = "auto"
    name: Annotated[
        str, Meta(pattern=r"^[A-Za-z0-9_.-]{1,64}\Z", description="Name of this replay server's keys in Redis.")
    ] = "default"
    fresh: Annotated[bool, Meta(description="Discard the transitions stored in Redis under this name.")] = False
    release_after: Annotated[
        Seconds,
        Meta(
            description="Release the transitions of a finished run after this time [s]; a learner that opens another"
            " run releases them at once."
        ),
    ] = 600.0
    redis_wait: Annotated[
        Seconds, Meta(description="Exit with code 3 if Redis does not answer within this time at the start [s].")
    ] = 60.0
    capacity: Annotated[
        int, Meta(ge=0, le=2**31, description="Size of the ring [transitions]; 0 = the run's replay.capacity.")
    ] = 0
    samples_per_insert: Annotated[
        NonNegative, Meta(description="Samples per inserted transition; 0 = the run's replay.samples_per_insert.")
    ] = 0.0
    seed: Annotated[int, Meta(ge=0, lt=2**32, description="Seed of the sampler.")] = 0
    keys: KeysOption = ""
    insecure: Annotated[
        bool,
        Meta(
            description="Allow a --bind address that other machines can reach without keys: anyone can read and write."
        ),
    ] = False
    audit: Annotated[
        str,
        Meta(
            description="Directory of the audit file that `shoal audit` reads; default: no audit.",
            extra={"metavar": "DIR"},
        ),
    ] = ""
    peer_memory: Annotated[
        int,
        Meta(
            # Regular messages in flight, and freed memory that the allocator retains, take up to about 128 MiB.
            ge=128,
            le=2**20,
            description="Memory that incomplete messages of peers may take [MiB]; beyond it all connections are closed,"
            " which frees it, and peers reconnect. TCP on Linux only.",
        ),
    ] = 1_024
    metrics_host: Annotated[str, Meta(description="Address of the HTTP server.")] = "127.0.0.1"
    metrics_port: Annotated[
        int, Meta(ge=0, le=65_535, description="Port of /metrics, /healthz and /readyz; 0 = any free port.")
    ] = 9101
    parent: Annotated[int, Meta(ge=0, description="Exit when this process exits.", extra={"hidden": True})] = 0

    @property
    def level(self) -> Durability:
        """The durability level: `durability`, with `auto` replaced by what the server does without and with Redis."""
        if self.durability != "auto":
            return self.durability
        return "ram" if self.redis == NO_REDIS else "redis"

    @property
    def redis_password(self) -> str:
        """The password of Redis, read from its file; empty without a file. ConfigError when the file has none."""
        if not self.redis_password_file:
            return ""
        try:
            password = Path(self.redis_password_file).read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError) as e:
            raise ConfigError(f"--redis-password-file {self.redis_password_file} cannot be read: {e}.") from e
        if not password:
            raise ConfigError(f"--redis-password-file {self.redis_password_file} is empty; write the password into it.")
        return password

    def check(self) -> None:
        """Raises ConfigError for options that contradict each other, or that expose the server without keys."""
        if self.redis == NO_REDIS and self.level != "ram":
            raise ConfigError(f"--durability {self.durability} needs a Redis; pass --redis URL or --durability ram.")
        if 0 < self.samples_per_insert < MIN_POSITIVE:
            raise ConfigError(
                f"--samples-per-insert {self.samples_per_insert:g}: expected 0 or at least {MIN_POSITIVE:g}."
            )
        require_local(self.bind, "--bind", insecure=self.insecure, keys=bool(self.keys))

    def applied_to(self, spec: ReplaySpec) -> ReplaySpec:
        """Returns a run's replay settings with this server's capacity and samples per insert, where they are set."""
        return msgspec.structs.replace(
            spec,
            capacity=self.capacity or spec.capacity,
            samples_per_insert=self.samples_per_insert or spec.samples_per_insert,
        )
