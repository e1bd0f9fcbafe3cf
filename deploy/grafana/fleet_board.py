"""The fleet dashboard: the processes, their use of the machines, and their errors."""

from __future__ import annotations

from deploy.grafana.expressions import chosen, rate
from deploy.grafana.panels import Json, Panel, Query, Row, choice, dashboard

NOW = Row(
    "Now",
    [
        Panel(
            "Processes",
            "Processes that answer Prometheus, by role. An actor node counts as one.",
            [Query('count by (role) (shoal_build_info{role=~"$role", instance=~"$instance"})', "{{role}}")],
            "none",
            "stat",
            8,
        ),
        Panel(
            "Actors' workers",
            "Workers that run, and workers configured.",
            [
                Query(f"sum({chosen('shoal_actor_workers_alive')})", "running"),
                Query(f"sum({chosen('shoal_actor_workers')})", "wanted"),
            ],
            "none",
            "stat",
            8,
        ),
        Panel(
            "Alerts",
            "Alerts that fire now. docs/runbook.md has a section for each.",
            [Query('count(ALERTS{alertname=~"Shoal.*", alertstate="firing"}) or vector(0)', "firing")],
            "none",
            "stat",
            8,
        ),
    ],
)

PROCESSES = Row(
    "Processes",
    [
        Panel(
            "Builds",
            "Different versions side by side mean an upgrade in progress, or an incomplete one.",
            [Query('shoal_build_info{role=~"$role", instance=~"$instance"}', "")],
            kind="table",
            width=16,
        ),
        Panel(
            "Answers Prometheus",
            "1 = yes.",
            [Query('up{job=~"actor|learner|replay", instance=~"$instance"}', "{{job}} {{instance}}")],
            "none",
            options={"min": 0, "max": 1},
        ),
        Panel(
            "Starts of processes",
            "In the last fifteen minutes; every step is a restart.",
            [Query(chosen("changes(process_start_time_seconds[15m])"), "{{job}} {{instance}}")],
            "none",
        ),
        Panel(
            "Restarts of workers",
            "In the last fifteen minutes; the reasons are in the node's log.",
            [Query(chosen("increase(shoal_actor_worker_restarts_total[15m])"), "{{instance}}")],
            "none",
        ),
        Panel(
            "Workers that do not run",
            "Configured workers that wait for their restart.",
            [Query(chosen("shoal_actor_workers - shoal_actor_workers_alive"), "{{instance}}")],
            "none",
        ),
    ],
)

MACHINES = Row(
    "What they take",
    [
        Panel(
            "Memory",
            "Private memory, workers included.",
            [Query(chosen("shoal_memory_bytes"), "{{job}} {{instance}}")],
            "bytes",
        ),
        Panel(
            "Memory, share of the limit",
            "Fraction of the limit of the container or machine. At 1 the kernel kills the process.",
            [Query(chosen("shoal_memory_bytes / shoal_memory_limit_bytes"), "{{job}} {{instance}}")],
            "percentunit",
            options={"min": 0, "max": 1},
        ),
        Panel(
            "Memory on GPUs",
            "Memory that torch has allocated.",
            [Query(chosen("shoal_learner_gpu_memory_bytes"), "{{instance}}")],
            "bytes",
        ),
        Panel(
            "CPU cores in use",
            "Workers included.",
            [Query(chosen(rate("shoal_cpu_seconds_total")), "{{job}} {{instance}}")],
            "none",
        ),
        Panel(
            "Open files, share of the limit",
            "At 1 the process cannot open connections.",
            [Query(chosen("process_open_fds / process_max_fds"), "{{job}} {{instance}}")],
            "percentunit",
        ),
        Panel(
            "Turns of the replay server's loop",
            "99th percentile of the duration of one iteration. The server answers no peer during an iteration.",
            [Query(f"histogram_quantile(0.99, {chosen(rate('shoal_replay_turn_seconds_bucket'))})", "{{instance}}")],
            "s",
        ),
    ],
)

QUEUES = Row(
    "Queues",
    [
        Panel(
            "Chunks not acknowledged",
            "At most eight per worker.",
            [Query(chosen("shoal_actor_chunks_unacknowledged"), "{{instance}}")],
        ),
        Panel(
            "Chunks Redis does not have",
            "Grows while Redis is slow or rejects chunks. Actors wait from 64 MiB on.",
            [Query(chosen("shoal_replay_uncommitted_chunks"), "{{instance}}")],
        ),
        Panel(
            "Peers of the replay",
            "Peers with a valid lease. Each worker is one peer.",
            [Query(chosen("shoal_replay_peers"), "{{instance}} {{role}}s")],
            "none",
        ),
    ],
)

ERRORS = Row(
    "What goes wrong",
    [
        Panel(
            "Messages the replay turned away",
            "Per second, by reason. Investigate anything but 0.",
            [Query(chosen(rate("shoal_replay_rejected_total")), "{{instance}} {{reason}}")],
        ),
        Panel(
            "Redis",
            "Failed commits per second, each retried. up: 1 while Redis accepts chunks.",
            [
                Query(chosen(rate("shoal_replay_redis_errors_total")), "{{instance}} errors"),
                Query(chosen("shoal_replay_redis_up"), "{{instance}} up"),
            ],
        ),
        Panel(
            "Chunks sent twice",
            "Per second: sent again by actors, and already stored by the replay. Connections are being lost.",
            [
                Query(chosen(rate("shoal_actor_chunks_resent_total")), "{{instance}} sent again"),
                Query(chosen(rate("shoal_replay_duplicate_chunks_total")), "{{instance}} duplicates"),
            ],
        ),
        Panel(
            "Refused at the ends",
            "Per second: weights rejected by actors, and batches with non-finite numbers rejected by the learner.",
            [
                Query(chosen(rate("shoal_actor_weights_rejected_total")), "{{instance}} weights"),
                Query(chosen(rate("shoal_learner_batches_rejected_total")), "{{instance}} batches"),
            ],
        ),
        Panel(
            "Late priorities",
            "Per second: TD errors of transitions that were overwritten meanwhile. Prioritised sampling only.",
            [Query(chosen(rate("shoal_replay_late_priorities_total")), "{{instance}}")],
        ),
        Panel(
            "Lost chunks",
            "Chunks found damaged or missing in Redis when the replay server started.",
            [Query(chosen("shoal_replay_recovery_skipped_chunks"), "{{instance}}")],
            "none",
        ),
        Panel(
            "Recovery",
            "Time that the replay server took to read its transitions from Redis when it started.",
            [Query(chosen("shoal_replay_recovery_seconds"), "{{instance}}")],
            "s",
        ),
    ],
)


def fleet_board() -> Json:
    """Returns the dashboard."""
    role = choice("role", "Role", "label_values(shoal_build_info, role)")
    instance = choice("instance", "Instance", 'label_values(shoal_build_info{role=~"$role"}, instance)')
    return dashboard(
        "shoal-fleet",
        "Shoal: fleet",
        "The processes, their use of the machines, and their errors.",
        [role, instance],
        [NOW, PROCESSES, MACHINES, QUEUES, ERRORS],
    )
