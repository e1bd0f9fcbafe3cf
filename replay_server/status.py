"""Makes the status message: the state of the whole run as the replay server knows it."""

from __future__ import annotations

from collections.abc import Sequence

from common.process.monitoring import metrics as process_metrics
from common.wire.messages import MAX_ACTORS_SHOWN, MAX_REASON_CHARACTERS, ActorReport, ActorStatus, Status
from replay_server.config import ReplayConfig
from replay_server.durability.journal import Journal
from replay_server.recent_stats import RecentStats
from replay_server.rejections import Rejections
from replay_server.sessions.actors import Actors
from replay_server.sessions.learners import Learners
from replay_server.sessions.session import ActorSession
from replay_server.sessions.waits import Wait
from replay_server.table.table import Table

NO_RUN = ("actors waiting for a learner: none has opened a run yet",)
MAX_ERROR_CHARACTERS = 2_000


def make_status(
    *,
    config: ReplayConfig,
    table: Table | None,
    actors: Actors,
    learners: Learners,
    journal: Journal,
    recent: RecentStats,
    rejections: Rejections,
    waits: Sequence[Wait],
    now: float,
    uptime_s: float,
    metrics_url: str,
    not_ready: str = "",
) -> Status:
    """Returns the status at monotonic time `now`. not_ready: why the server does not serve yet."""
    limiter = table.limiter if table else None
    inserts, samples = (limiter.inserts, limiter.samples) if limiter else (0, 0)
    live = list(actors.live(now))
    restarts, last_fault = actors.faults()
    return Status(
        run=table.run if table else None,
        uptime_s=uptime_s,
        durability=config.level,
        size=table.size if table else 0,
        capacity=table.ring.capacity if table else config.capacity,
        inserts=inserts,
        samples=samples,
        target_samples_per_insert=limiter.spec.max_ratio if limiter else config.samples_per_insert,
        samples_per_insert=limiter.realised if limiter else 0.0,
        inserts_per_s=recent.inserts.per_second(inserts, now),
        samples_per_s=recent.samples.per_second(samples, now),
        episodes=recent.episodes,
        return_mean=recent.returns.mean,
        return_means=recent.returns.means,
        policy_lag=recent.lag.mean,
        actors=tuple(_actor_status(session, now) for session in live[:MAX_ACTORS_SHOWN]),
        actor_count=len(live),
        learner=learners.report,
        learner_seconds_since_seen=now - learners.last_seen_at if learners.last_seen_at else -1.0,
        waiting=_waiting([wait.text(now) for wait in waits], not_ready, has_run=table is not None),
        duplicate_chunks=rejections.duplicate_chunks,
        rejected=dict(rejections.rejected),
        unacknowledged_chunks=len(journal),
        last_error=(journal.error or rejections.last_error)[:MAX_ERROR_CHARACTERS],
        metrics_url=metrics_url,
        software=process_metrics.software_version(),
        worker_restarts=restarts,
        last_fault=last_fault[:MAX_REASON_CHARACTERS],
        late_priorities=rejections.late_priorities,
        actors_without_weights=sum(_refuses_weights(session) for session in live),
        absent=_absent(journal, live_actors=len(live), inserts=inserts)[:MAX_ERROR_CHARACTERS],
        shared_reward=_is_shared([session.report for session in live if session.report]),
    )


def _refuses_weights(session: ActorSession) -> bool:
    report = session.report
    return report is not None and bool(report.weights_refused) and not report.weights_version


def _waiting(waits: Sequence[str], not_ready: str, *, has_run: bool) -> tuple[str, ...]:
    if not_ready:
        return (not_ready,)
    return tuple(text for text in waits if text) if has_run else NO_RUN


def _absent(journal: Journal, *, live_actors: int, inserts: int) -> str:
    """Returns which peer of the run is missing; empty if none is."""
    if journal.error:
        return f"Redis: {journal.error}"
    return "actors: none is connected" if inserts and not live_actors else ""


def _is_shared(reports: list[ActorReport]) -> bool:
    """Returns whether every actor that has finished an episode reports equal rewards for all agents."""
    reports = [report for report in reports if report.episodes]
    return bool(reports) and all(report.shared_reward for report in reports)


def _actor_status(session: ActorSession, now: float) -> ActorStatus:
    report = session.report
    return ActorStatus(
        actor=session.actor,
        incarnation=session.incarnation,
        seconds_since_seen=now - session.last_seen_at,
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
