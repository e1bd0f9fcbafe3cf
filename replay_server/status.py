"""The status: what the replay knows of the whole run, as one message."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from common.process import metrics as vitals
from common.wire.messages import MAX_REASON_CHARACTERS, MOST_ACTORS_SHOWN, ActorReport, ActorStatus, Status
from replay_server.sessions.session import ActorSession

if TYPE_CHECKING:
    from replay_server.replay import Replay

NO_RUN = ("actors waiting for a learner: none has brought a run yet",)


def make_status(replay: Replay, now: float, *, not_ready: str = "") -> Status:
    """Returns the status at monotonic time `now`; not_ready: why the server does not serve yet."""
    table, recent, learners = replay.table, replay.recent, replay.learners
    limiter = table.limiter if table else None
    inserts, samples = (limiter.inserts, limiter.samples) if limiter else (0, 0)
    live = list(replay.actors.live(now))
    waits = (replay.actors_wait.told(now), replay.learner_wait.told(now))
    restarts, last_fault = replay.actors.faults()
    return Status(
        run=table.run if table else None,
        uptime_s=now - replay.started,
        durability=replay.settings.durability,
        size=table.size if table else 0,
        capacity=table.ring.capacity if table else replay.settings.capacity,
        inserts=inserts,
        samples=samples,
        target_samples_per_insert=limiter.spec.samples_per_insert if limiter else replay.settings.samples_per_insert,
        samples_per_insert=limiter.realised if limiter else 0.0,
        inserts_per_s=recent.inserts.per_second(inserts, now),
        samples_per_s=recent.samples.per_second(samples, now),
        episodes=recent.episodes,
        return_mean=recent.returns.mean,
        return_means=recent.returns.means,
        policy_lag=recent.lag.mean,
        actors=tuple(_actor_status(session, now) for session in live[:MOST_ACTORS_SHOWN]),
        actor_count=len(live),
        learner=learners.report,
        learner_seconds_since_seen=now - learners.seen if learners.seen else -1.0,
        waiting=_waiting(waits, not_ready, has_run=table is not None),
        duplicate_chunks=replay.tally.duplicate_chunks,
        rejected=dict(replay.tally.rejected),
        unacknowledged_chunks=len(replay.journal),
        last_error=(replay.journal.error or replay.tally.last_error)[:2_000],
        metrics_url=replay.settings.metrics_url,
        software=vitals.software_version(),
        worker_restarts=restarts,
        last_fault=last_fault[:MAX_REASON_CHARACTERS],
        late_priorities=replay.tally.late_priorities,
        actors_without_weights=sum(_refuses_weights(session) for session in live),
        absent=_absent(replay, live_actors=len(live), inserts=inserts)[:2_000],
        shared_reward=_is_shared([session.report for session in live if session.report]),
    )


def _refuses_weights(session: ActorSession) -> bool:
    report = session.report
    return report is not None and bool(report.weights_refused) and not report.weights_version


def _waiting(waits: Sequence[str], not_ready: str, *, has_run: bool) -> tuple[str, ...]:
    if not_ready:
        return (not_ready,)
    return tuple(text for text in waits if text) if has_run else NO_RUN


def _absent(replay: Replay, *, live_actors: int, inserts: int) -> str:
    """Returns the peer that the run had and that is gone; empty when there is none."""
    if replay.journal.error:
        return f"Redis: {replay.journal.error}"
    return "actors: none is connected" if inserts and not live_actors else ""


def _is_shared(reports: list[ActorReport]) -> bool:
    """Returns whether every actor that has finished an episode saw equal rewards for all agents."""
    played = [report for report in reports if report.episodes]
    return bool(played) and all(report.shared_reward for report in played)


def _actor_status(session: ActorSession, now: float) -> ActorStatus:
    report = session.report
    return ActorStatus(
        actor=session.actor,
        incarnation=session.incarnation,
        seconds_since_seen=now - session.seen,
        env_steps=report.env_steps if report else 0,
        episodes=report.episodes if report else 0,
        weights_version=report.weights_version if report else 0,
        weights_age_s=report.weights_age_s if report else 0.0,
        waiting_for=report.waiting_for[:MAX_REASON_CHARACTERS] if report else "",
        waited_s=report.waited_s if report else 0.0,
        metrics_url=report.metrics_url[:MAX_REASON_CHARACTERS] if report else "",
        software=report.software[:MAX_REASON_CHARACTERS] if report else "",
        doing=report.doing[:MAX_REASON_CHARACTERS] if report else "",
        restarts=report.restarts if report else 0,
        last_fault=report.last_fault[:MAX_REASON_CHARACTERS] if report else "",
        weights_refused=report.weights_refused[:MAX_REASON_CHARACTERS] if report else "",
    )
