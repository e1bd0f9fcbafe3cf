"""The messages of the data plane: one frozen struct each, identified by its tag.

    actor   -> replay    Hello, Chunk (+ records), ActorReport, Busy, Bye
    replay  -> actor     Welcome (+ weights), NotReady, Ack, Gap, Fenced, Unknown, Refused
    learner -> replay    Open, SampleRequest, Priorities (+ sample info), PutWeights (+ weights), LearnerReport
    replay  -> learner   Opened, NotReady, Batch (+ records, sample info), Held, Unknown, Refused
    anyone  -> replay    StatusRequest          replay -> anyone    Status

"+" names the payload, a second frame. Sample info (common/wire/sample_info.py) is sent only where sampling follows
priorities. Delivery: an actor stores a chunk until an Ack covers its `seq`. The replay server stores exactly the next
seq of an actor's current incarnation. It answers a missing seq with Gap (the actor sends again from there) and an older
incarnation with Fenced (the worker exits). `Unknown` asks a peer that the server does not know, for example after the
server restarted, to introduce itself again.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from common.run.run import Run

MAX_TEXT_CHARACTERS = 2_000
"""Maximum length of a text in a message [characters]."""
Text = Annotated[str, Meta(max_length=MAX_TEXT_CHARACTERS)]
Name = Annotated[str, Meta(min_length=1, max_length=120, pattern=r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029]*\Z")]
"""A name that appears in logs, where an event is one line: no control characters."""
Hash = Annotated[str, Meta(max_length=16)]
RunId = Annotated[str, Meta(max_length=64)]
Natural = Annotated[int, Meta(ge=0, le=2**62)]
PeerCount = Annotated[int, Meta(ge=0, le=2**53)]
"""A count that a peer states and from which the server continues to count; the bound leaves room below `Natural`."""
Uint32 = Annotated[int, Meta(ge=0, lt=2**32)]
MAX_WARNINGS = 16
"""Maximum number of warnings in one learner report."""
Finite = Annotated[float, Meta(ge=-1e100, le=1e100)]
"""A finite number: one NaN or infinity would spoil every mean that includes it."""


class Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind"):
    """The base class of all messages."""


# ---- actors -------------------------------------------------------------------------------------------------------


class Hello(Message, frozen=True, tag="hello"):
    """Introduces one actor worker; `incarnation` 0 requests a new one, any other value resumes it."""

    actor: Name
    incarnation: PeerCount
    acked: PeerCount
    data_hash: Hash
    """Run.data_hash of the run that the worker collected for; empty before its first Welcome."""
    run: RunId = ""
    """Identifier of that run; empty before the worker's first Welcome."""


class Chunk(Message, frozen=True, tag="chunk"):
    """Carries `count` records as its payload; `seq` counts this incarnation's chunks from 1."""

    actor: Name
    incarnation: Natural
    seq: Natural
    count: Uint32
    policy_version: Uint32
    """Version of the newest weights used in this chunk."""
    crc32c: Uint32
    """CRC-32C of the payload."""
    data_hash: Hash
    """Run.data_hash of the run that the records belong to."""
    copies: Annotated[int, Meta(ge=0, le=65_536)] = 0
    """World copies that step together: the next step of record i is record i + copies. 0 = unknown."""
    ends: Annotated[bytes, Meta(max_length=65_528)] = b""
    """One bit a record, highest bit first: whether the episode ended with it, terminated or truncated."""
    run: RunId = ""
    """Identifier of the run that the records belong to: two runs of one world have equal data hashes."""


class ActorReport(Message, frozen=True, tag="actor_report"):
    """Reports once a second what a worker has done since it started and what it waits for; answered by an Ack."""

    actor: Name
    incarnation: Natural
    env_steps: Natural
    episodes: Natural
    return_sum: Finite
    """Sum over finished episodes of the return summed over agents, exploration included."""
    return_sums: tuple[Finite, ...]
    """Sum over finished episodes of each agent's return, exploration included."""
    weights_version: Natural
    weights_age_s: Finite
    waiting_for: Text
    """Reason why the worker waits; empty while it collects."""
    waited_s: Finite
    """Total waiting time [s]."""
    metrics_url: Text
    software: Text = ""
    """Version of Shoal."""
    doing: Text = ""
    """Activity that slows the worker down ("making copy 7 of 32"); empty at the usual pace."""
    restarts: Natural = 0
    """Number of times that the supervisor has restarted the worker."""
    last_fault: Text = ""
    """Reason of the last restart; empty if there was none."""
    weights_refused: Text = ""
    """Why the newest weights frame was refused; empty if it was accepted."""
    shared_reward: bool = False
    """Whether all agents received equal rewards in every step so far."""


class Busy(Message, frozen=True, tag="busy"):
    """Reports that a worker is alive while its environment blocks it, and what it does; not answered.

    The worker's supervisor sends it over a separate connection.
    """

    actor: Name
    incarnation: Natural
    doing: Text


class Bye(Message, frozen=True, tag="bye"):
    """Ends an actor's session: the actor sends nothing more. Chunks that are not acknowledged yet are lost."""

    actor: Name
    incarnation: Natural


# ---- answers to actors --------------------------------------------------------------------------------------------


class Welcome(Message, frozen=True, tag="welcome"):
    """Admits an actor and names its run; the payload is the newest weights frame."""

    run: Run
    incarnation: Natural
    stored: Natural
    """Seq of the actor's last chunk that is stored at the server's durability (`ActorSession.durable`)."""
    credit: Natural
    """Highest seq that the actor may send."""


class NotReady(Message, frozen=True, tag="not_ready"):
    """Asks a peer to retry later: the replay server has no run yet, waits for Redis, or recovers its chunks."""

    reason: Text
    """What the peer waits for, as a noun phrase after "waiting for": "a learner: none has opened a run yet"."""


class Ack(Message, frozen=True, tag="ack"):
    """Acknowledges every chunk up to seq `stored`, and allows chunks up to seq `credit`."""

    incarnation: Natural
    stored: Natural
    """Seq of the actor's last chunk that is stored at the server's durability, as in `Welcome`."""
    credit: Natural
    reason: Text
    """What more credit waits for, as a noun phrase after "waiting for"; empty while the actor has credit."""


class Gap(Message, frozen=True, tag="gap"):
    """Asks an actor to send again from `received` + 1 on: a chunk is missing."""

    incarnation: Natural
    received: Natural


class Fenced(Message, frozen=True, tag="fenced"):
    """Rejects an old incarnation, because a newer one has replaced it."""

    incarnation: Natural


# ---- learners -----------------------------------------------------------------------------------------------------


class Open(Message, frozen=True, tag="open"):
    """Introduces a learner and the run that it trains."""

    learner: Name
    run: Run
    inserts: PeerCount = 0
    """Transitions ever inserted in this run, as the learner knows it; an empty replay server continues from here."""
    samples: PeerCount = 0
    """Samples ever drawn in this run, as the learner knows it."""
    fresh: bool = False
    """Whether to discard the transitions of another run that is not finished, if no learner of it is connected."""


class Opened(Message, frozen=True, tag="opened"):
    """Admits a learner and reports the state of the replay."""

    inserts: Natural
    samples: Natural
    size: Natural
    """Transitions in the ring."""
    weights_version: Natural


class SampleRequest(Message, frozen=True, tag="sample"):
    """Requests one batch of `count` records; answered by Batch, and by Held once a second until then."""

    request: Natural
    count: Annotated[int, Meta(ge=1, le=65_536)]


class Batch(Message, frozen=True, tag="batch"):
    """Carries `count` records as its payload, followed by their sample info where sampling follows priorities."""

    request: Natural
    count: Uint32
    inserts: Natural
    """Transitions ever inserted in this run; schedules and budgets count them [environment steps]."""
    size: Natural
    """Transitions in the ring."""


class Held(Message, frozen=True, tag="held"):
    """Reports why a requested batch is delayed."""

    request: Natural
    inserts: Natural
    reason: Text
    """What the batch waits for, as a noun phrase after "waiting for": "more transitions"."""


class Priorities(Message, frozen=True, tag="priorities"):
    """Returns the sample info of `count` records with their TD errors as its payload; not answered."""

    count: Annotated[int, Meta(ge=1, le=65_536)]


class PutWeights(Message, frozen=True, tag="put_weights"):
    """Stores a copy of a published weights frame at the replay server, for actors that join later."""

    version: Natural


class EvaluationReport(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The newest evaluation of a run while it trains, and the best one so far; returns without exploration."""

    env_steps: Natural
    """Environment steps of the run when the evaluated weights were taken."""
    episodes: Natural
    return_mean: Finite
    """Mean return of the newest evaluation, summed over agents."""
    side_returns: dict[Text, Finite]
    """Side -> mean return of the newest evaluation, summed over the side's agents; empty in a world with one side."""
    best_return: Finite
    """Largest mean return of all evaluations of the run."""
    best_env_steps: Natural
    """Environment steps at which the largest mean return was reached."""


class LearnerReport(Message, frozen=True, tag="learner_report"):
    """Reports once a second what the learner has done and what it waits for."""

    learner: Name
    updates: Natural
    updates_per_s: Finite
    weights_version: Natural
    progress: Finite
    """Fraction of the budget used, 0 to 1."""
    critic_loss: float
    """NaN before the first update."""
    policy_loss: float
    """NaN before the first update."""
    waiting_for: Text
    waited_s: Finite
    last_checkpoint_s: Finite
    """Seconds since the last checkpoint; negative before the first."""
    finished: bool
    metrics_url: Text
    software: Text = ""
    trained_s: Finite = 0.0
    """Time charged to the budget so far [s]."""
    doing: Text = ""
    """Activity before the first update ("warming up: 1,536 of 5,000 transitions, about 1:10 left"); else empty."""
    paused: Text = ""
    """The missing peer during whose absence no time is charged to the budget; empty while time is charged."""
    warnings: Annotated[tuple[Text, ...], Meta(max_length=MAX_WARNINGS)] = ()
    """Warnings about the budget, the inputs and the settings, one line each."""
    evaluation: EvaluationReport | None = None
    """The newest evaluation while the run trains; None before the first."""


# ---- anyone -------------------------------------------------------------------------------------------------------


class Unknown(Message, frozen=True, tag="unknown"):
    """Asks a peer that this server does not know to introduce itself."""


class Refused(Message, frozen=True, tag="refused"):
    """Rejects a message permanently, with the reason."""

    reason: Text


class StatusRequest(Message, frozen=True, tag="status_request"):
    """Requests the status of the whole run."""


class ActorStatus(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The state of one connected actor, as the replay server sees it."""

    actor: Name
    incarnation: Natural
    seconds_since_seen: float
    env_steps: Natural
    episodes: Natural
    weights_version: Natural
    weights_age_s: float
    waiting_for: Text
    waited_s: float
    metrics_url: Text
    software: Text = ""
    doing: Text = ""
    restarts: Natural = 0
    last_fault: Text = ""
    weights_refused: Text = ""


class Status(Message, frozen=True, tag="status"):
    """The state of the whole run, as the replay server sees it."""

    run: Run | None
    uptime_s: float
    durability: Text
    size: Natural
    """Transitions in the ring."""
    capacity: Natural
    """Transitions that fit into the ring."""
    inserts: Natural
    samples: Natural
    target_samples_per_insert: float
    samples_per_insert: float
    """Realised ratio since the replay first contained `min_size` transitions."""
    inserts_per_s: float
    samples_per_s: float
    episodes: Natural
    return_mean: float
    """Mean return over at least the last 100 episodes, exploration included; NaN before the first."""
    return_means: tuple[float, ...]
    policy_lag: float
    """Mean over the last chunks of (newest weights version - version used)."""
    actors: tuple[ActorStatus, ...]
    """The first MAX_ACTORS_SHOWN actors, so that the message stays small."""
    actor_count: Natural
    learner: LearnerReport | None
    learner_seconds_since_seen: float
    waiting: tuple[Text, ...]
    """Which process waits for which, one text each."""
    duplicate_chunks: Natural
    rejected: dict[str, int]
    unacknowledged_chunks: Natural
    last_error: Text
    metrics_url: Text
    software: Text = ""
    worker_restarts: Natural = 0
    """Restarts of workers by their supervisors, over all actors that this server has seen."""
    last_fault: Text = ""
    """Reason of the last such restart."""
    late_priorities: Natural = 0
    """TD errors that arrived after their records had been overwritten."""
    actors_without_weights: Natural = 0
    """Connected actors that have no weights of this run and refused the newest frame."""
    absent: Text = ""
    """The peer that disappeared during the run: Redis, or every actor; empty otherwise."""
    shared_reward: bool = False
    """Whether all agents received equal rewards in every step that live actors have seen."""


MAX_ACTORS_SHOWN = 256
MAX_REASON_CHARACTERS = 200
"""Maximum length of `Status.last_fault` and of each text in `Status.actors` [characters]."""

FromPeer = (
    Hello
    | Chunk
    | ActorReport
    | Busy
    | Bye
    | Open
    | SampleRequest
    | Priorities
    | PutWeights
    | LearnerReport
    | StatusRequest
)
ToPeer = Welcome | NotReady | Ack | Gap | Fenced | Opened | Batch | Held | Unknown | Refused | Status
