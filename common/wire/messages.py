"""Every message of the data plane: one frozen struct each, told apart by its tag.

    actor   -> replay    Hello, Chunk (+ records), ActorReport, Busy, Bye
    replay  -> actor     Welcome (+ weights), NotReady, Ack, Gap, Fenced, Unknown, Refused
    learner -> replay    Open, SampleRequest, Priorities (+ places), PutWeights (+ weights), LearnerReport
    replay  -> learner   Opened, Batch (+ records, places), Held, Unknown, Refused
    anyone  -> replay    StatusRequest          replay -> anyone    Status

"+" names the payload, a second frame; places (common/wire/sample_info.py) come only where sampling follows priorities.
Delivery: a chunk is kept by its actor until an Ack covers its `seq`; the replay stores exactly the next seq of an
actor's current incarnation, answers a hole with Gap (the actor goes back) and an older incarnation with Fenced (the
worker ends). `Unknown` asks a peer the server does not know (after a restart) to introduce itself again.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from common.run.run import Run

LONGEST_TEXT = 2_000
"""Characters."""
Text = Annotated[str, Meta(max_length=LONGEST_TEXT)]
Name = Annotated[str, Meta(min_length=1, max_length=120, pattern=r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029]*\Z")]
"""Stands in logs, one line an event: no control characters."""
Hash = Annotated[str, Meta(max_length=16)]
Natural = Annotated[int, Meta(ge=0, le=2**62)]
Stated = Annotated[int, Meta(ge=0, le=2**53)]
"""A count that a peer states and the server counts on from, without ever leaving what it can say itself."""
Word = Annotated[int, Meta(ge=0, lt=2**32)]
MOST_WARNINGS = 16
"""In one report of a learner."""
Finite = Annotated[float, Meta(ge=-1e100, le=1e100)]
"""Neither NaN nor infinite: one such figure would spoil every mean it enters."""


class Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind"):
    """Is the root of all messages."""


# ---- actors -------------------------------------------------------------------------------------------------------


class Hello(Message, frozen=True, tag="hello"):
    """Introduces one actor worker; `incarnation` 0 asks for a new one, else it states what this one knows."""

    actor: Name
    incarnation: Stated
    acked: Stated
    data_hash: Hash
    """Run.data_hash of the run it has been collecting for; empty before its first Welcome."""


class Chunk(Message, frozen=True, tag="chunk"):
    """Carries `count` records as its payload; `seq` counts this incarnation's chunks from 1."""

    actor: Name
    incarnation: Natural
    seq: Natural
    count: Word
    policy_version: Word
    """Newest weights used in this chunk."""
    crc32c: Word
    """Of the payload."""
    data_hash: Hash
    copies: Annotated[int, Meta(ge=0, le=65_536)] = 0
    """World copies that stepped together: a record's next step stands so many records further. 0 = not told."""
    ends: Annotated[bytes, Meta(max_length=65_528)] = b""
    """One bit a record, a byte's highest first: whether its episode ended with it, for whatever reason."""


class ActorReport(Message, frozen=True, tag="actor_report"):
    """Tells, once a second, what a worker did since it started and what it waits for; answered by an Ack."""

    actor: Name
    incarnation: Natural
    env_steps: Natural
    episodes: Natural
    return_sum: Finite
    """Sum over finished episodes of the return summed over agents, exploration included."""
    return_sums: tuple[Finite, ...]
    """The same, agent by agent."""
    weights_version: Natural
    weights_age_s: Finite
    waiting_for: Text
    """Empty while it collects."""
    waited_s: Finite
    """Waiting time in all."""
    metrics_url: Text
    software: Text = ""
    """Version of Shoal, as in the three below."""
    doing: Text = ""
    """What keeps the worker from speaking every second ("making copy 7 of 32"); empty at the usual pace."""
    restarts: Natural = 0
    """How often its supervisor has started it again."""
    last_fault: Text = ""
    """Why it was started again last; empty if it never was."""
    weights_refused: Text = ""
    """Why the newest weights frame was refused; empty if it was accepted."""
    shared_reward: bool = False
    """Whether all agents received equal rewards in every step so far."""


class Busy(Message, frozen=True, tag="busy"):
    """Says for a worker whom its environment keeps from reporting that it lives, and what it does; not answered.

    Sent by the worker's supervisor, over a connection of its own.
    """

    actor: Name
    incarnation: Natural
    doing: Text


class Bye(Message, frozen=True, tag="bye"):
    """Ends an actor's session: it sends nothing more and keeps nothing un-acknowledged."""

    actor: Name
    incarnation: Natural


# ---- answers to actors --------------------------------------------------------------------------------------------


class Welcome(Message, frozen=True, tag="welcome"):
    """Admits an actor: the run, its incarnation, its last stored seq; the newest weights as payload."""

    run: Run
    incarnation: Natural
    stored: Natural
    credit: Natural
    """Highest seq the actor may send."""


class NotReady(Message, frozen=True, tag="not_ready"):
    """Asks to try again: the replay has no run yet."""

    reason: Text


class Ack(Message, frozen=True, tag="ack"):
    """Acknowledges every chunk up to `stored` at the server's durability and allows sending up to `credit`."""

    incarnation: Natural
    stored: Natural
    credit: Natural
    reason: Text
    """Why there is no more credit; empty when there is."""


class Gap(Message, frozen=True, tag="gap"):
    """Asks to go back: the next seq must be `received` + 1."""

    incarnation: Natural
    received: Natural


class Fenced(Message, frozen=True, tag="fenced"):
    """Tells an old incarnation that a newer one has taken its place."""

    incarnation: Natural


# ---- learners -----------------------------------------------------------------------------------------------------


class Open(Message, frozen=True, tag="open"):
    """Introduces a learner and the run it trains."""

    learner: Name
    run: Run
    inserts: Stated = 0
    """The run's clock as far as the learner knows it: a replay that has forgotten goes on from there."""
    samples: Stated = 0


class Opened(Message, frozen=True, tag="opened"):
    """Admits a learner: how far the replay is."""

    inserts: Natural
    samples: Natural
    size: Natural
    weights_version: Natural


class SampleRequest(Message, frozen=True, tag="sample"):
    """Asks for one batch of `count` records; answered by Batch, and by Held each second until then."""

    request: Natural
    count: Annotated[int, Meta(ge=1, le=65_536)]


class Batch(Message, frozen=True, tag="batch"):
    """Carries `count` records as its payload, and after them, where sampling follows priorities, their places."""

    request: Natural
    count: Word
    inserts: Natural
    """Transitions ever stored in this run: the run's clock in environment steps."""
    size: Natural


class Held(Message, frozen=True, tag="held"):
    """Says why a batch does not come yet."""

    request: Natural
    inserts: Natural
    reason: Text


class Priorities(Message, frozen=True, tag="priorities"):
    """Returns the places of `count` records with their TD errors as its payload; not answered."""

    count: Annotated[int, Meta(ge=1, le=65_536)]


class PutWeights(Message, frozen=True, tag="put_weights"):
    """Leaves a copy of a published weights frame with the replay, for actors that join later."""

    version: Natural


class LearnerReport(Message, frozen=True, tag="learner_report"):
    """Tells, once a second, what the learner has done and what it waits for."""

    learner: Name
    updates: Natural
    updates_per_s: Finite
    weights_version: Natural
    progress: Finite
    """Share of the budget used, 0 to 1."""
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
    """What precedes the first update ("warming up: 1,536 of 5,000 transitions, about 1:10 left"); empty afterwards."""
    paused: Text = ""
    """The peer that is gone, for which time is not charged to the budget; empty while time is charged."""
    warnings: Annotated[tuple[Text, ...], Meta(max_length=MOST_WARNINGS)] = ()
    """What the learner remarks of its budget, inputs and settings, a line each."""


# ---- anyone -------------------------------------------------------------------------------------------------------


class Unknown(Message, frozen=True, tag="unknown"):
    """Asks a peer this server does not know to introduce itself."""


class Refused(Message, frozen=True, tag="refused"):
    """Refuses a message for good and says why."""

    reason: Text


class StatusRequest(Message, frozen=True, tag="status_request"):
    """Asks what the replay knows of the whole run."""


class ActorStatus(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One connected actor as the replay sees it."""

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
    """What the replay knows of the whole run."""

    run: Run | None
    uptime_s: float
    durability: Text
    size: Natural
    capacity: Natural
    inserts: Natural
    samples: Natural
    target_samples_per_insert: float
    samples_per_insert: float
    """Realised since the replay first held `min_size`."""
    inserts_per_s: float
    samples_per_s: float
    episodes: Natural
    return_mean: float
    """Mean over the last 100 episodes or more, exploration included; NaN before the first."""
    return_means: tuple[float, ...]
    policy_lag: float
    """Mean over the last chunks of newest weights version - version used."""
    actors: tuple[ActorStatus, ...]
    """The first MOST_ACTORS_SHOWN of them, so that the message stays small."""
    actor_count: Natural
    learner: LearnerReport | None
    learner_seconds_since_seen: float
    waiting: tuple[Text, ...]
    """Who waits for whom, in words."""
    duplicate_chunks: Natural
    rejected: dict[str, int]
    unacknowledged_chunks: Natural
    last_error: Text
    metrics_url: Text
    software: Text = ""
    worker_restarts: Natural = 0
    """Workers started again by their supervisors, over all actors this server has heard of."""
    last_fault: Text = ""
    """Why one of them was started again last."""
    late_priorities: Natural = 0
    """TD errors of records that had been overwritten before they came."""
    actors_without_weights: Natural = 0
    """Connected actors that have no weights of this run and refused the newest frame."""
    absent: Text = ""
    """The peer that the run had and that is gone: Redis, or every actor; empty otherwise."""
    shared_reward: bool = False
    """Whether all agents received equal rewards in every step that live actors have seen."""


MOST_ACTORS_SHOWN = 256
WORDS_SHOWN = 200
"""Characters of a reason that a list of many shows."""

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
