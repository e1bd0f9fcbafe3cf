"""The fleet dashboard: the processes, their use of the machines, and their errors."""

from __future__ import annotations

from deploy.grafana.expressions import rate, selected
from deploy.grafana.panels import Json, Panel, Query, Row, dashboard, label_variable

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
            "Workers that run, and workers that are configured.",
            [
                Query(f"sum({selected('shoal_actor_workers_alive')})", "running"),
                Query(f"sum({selected('shoal_actor_workers')})", "configured"),
            ],
            "none",
            "stat",
            8,
        ),
        Panel(
            "Alerts",
            "Firing alerts. docs/runbook.md has a section for each.",
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
            "Scrape succeeds",
            "1 if the process answered Prometheus' last scrape, else 0.",
            [Query('up{job=~"actor|learner|replay", instance=~"$instance"}', "{{job}} {{instance}}")],
            "none",
            options={"min": 0, "max": 1},
        ),
        Panel(
            "Starts of processes",
            "Starts in the last fifteen minutes; each increase is a restart.",
            [Query(selected("changes(process_start_time_seconds[15m])"), "{{job}} {{instance}}")],
            "none",
        ),
        Panel(
            "Restarts of workers",
            "Restarts in the last fifteen minutes; the node's log contains the reasons.",
            [Query(selected("increase(shoal_actor_worker_restarts_total[15m])"), "{{instance}}")],
            "none",
        ),
        Panel(
            "Workers that do not run",
            "Configured workers that wait for their restart.",
            [Query(selected("shoal_actor_workers - shoal_actor_workers_alive"), "{{instance}}")],
            "none",
        ),
    ],
)

MACHINES = Row(
    "Resources",
    [
        Panel(
            "Memory",
            "Private memory of the process and its workers.",
            [Query(selected("shoal_memory_bytes"), "{{job}} {{instance}}")],
            "bytes",
        ),
        Panel(
            "Memory, fraction of the limit",
            "Fraction of the limit of the container or machine. At 1 the kernel kills the process.",
            [Query(selected("shoal_memory_bytes / shoal_memory_limit_bytes"), "{{job}} {{instance}}")],
            "percentunit",
            options={"min": 0, "max": 1},
        ),
        Panel(
            "GPU memory",
            "Memory that torch has allocated.",
            [Query(selected("shoal_learner_gpu_memory_bytes"), "{{instance}}")],
            "bytes",
        ),
        Panel(
            "CPU cores in use",
            "CPU cores used by the process and its workers.",
            [Query(selected(rate("shoal_cpu_seconds_total")), "{{job}} {{instance}}")],
            "none",
        ),
        Panel(
            "Open files, fraction of the limit",
            "At 1 the process cannot open connections.",
            [Query(selected("process_open_fds / process_max_fds"), "{{job}} {{instance}}")],
            "percentunit",
        ),
        Panel(
            "Iterations of the replay server's loop",
            "99th percentile of the duration of one iteration. The server answers no peer during an iteration.",
            [Query(f"histogram_quantile(0.99, {selected(rate('shoal_replay_turn_seconds_bucket'))})", "{{instance}}")],
            "s",
        ),
    ],
)

QUEUES = Row(
    "Queues",
    [
        Panel(
            "Chunks not acknowledged",
            "Chunks that were sent and not acknowledged; at most eight per worker.",
            [Query(selected("shoal_actor_chunks_unacknowledged"), "{{instance}}")],
        ),
        Panel(
            "Chunks not committed to Redis",
            "Grows while Redis is slow or rejects chunks. From 64 MiB on, actors wait.",
            [Query(selected("shoal_replay_uncommitted_chunks"), "{{instance}}")],
        ),
        Panel(
            "Peers of the replay server",
            "Peers with a valid lease. Each actor worker is one peer.",
            [Query(selected("shoal_replay_peers"), "{{instance}} {{role}}s")],
            "none",
        ),
    ],
)

ERRORS = Row(
    "Errors",
    [
        Panel(
            "Messages rejected by the replay server",
            "Messages per second, by reason. Investigate any value above 0.",
            [Query(selected(rate("shoal_replay_rejected_total")), "{{instance}} {{reason}}")],
        ),
        Panel(
            "Redis",
            "Failed commits per second, each retried. up: 1 while Redis accepts chunks.",
            [
                Query(selected(rate("shoal_replay_redis_errors_total")), "{{instance}} errors"),
                Query(selected("shoal_replay_redis_up"), "{{instance}} up"),
            ],
        ),
        Panel(
            "Chunks sent again",
            "Chunks per second that actors sent again, and that had already arrived. Above 0, connections are lost.",
            [
                Query(selected(rate("shoal_actor_chunks_resent_total")), "{{instance}} sent again"),
                Query(selected(rate("shoal_replay_duplicate_chunks_total")), "{{instance}} duplicates"),
            ],
        ),
        Panel(
            "Weights and batches rejected",
            "Per second: weights that actors rejected, and batches with non-finite numbers that the learner rejected.",
            [
                Query(selected(rate("shoal_actor_weights_rejected_total")), "{{instance}} weights"),
                Query(selected(rate("shoal_learner_batches_rejected_total")), "{{instance}} batches"),
            ],
        ),
        Panel(
            "Late priorities",
            "TD errors per second whose transitions were already overwritten. Prioritised sampling only.",
            [Query(selected(rate("shoal_replay_late_priorities_total")), "{{instance}}")],
        ),
        Panel(
            "Lost chunks",
            "Chunks found damaged or missing in Redis when the replay server started.",
            [Query(selected("shoal_replay_recovery_skipped_chunks"), "{{instance}}")],
            "none",
        ),
        Panel(
            "Recovery",
            "Time that the replay server took to read its transitions from Redis when it started.",
            [Query(selected("shoal_replay_recovery_seconds"), "{{instance}}")],
            "s",
        ),
    ],
)


def fleet_board() -> Json:
    """Returns the dashboard."""
    role = label_variable("role", "Role", "label_values(shoal_build_info, role)")
    instance = label_variable("instance", "Instance", 'label_values(shoal_build_info{role=~"$role"}, instance)')
    return dashboard(
        "shoal-fleet",
        "Shoal: fleet",
        "The processes, their use of the machines, and their errors.",
        [role, instance],
        [NOW, PROCESSES, MACHINES, QUEUES, ERRORS],
    )
