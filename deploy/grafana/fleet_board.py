"""The dashboard of the fleet: which processes there are, what they take of the machines, what goes wrong."""

from __future__ import annotations

from deploy.grafana.expressions import chosen, rate
from deploy.grafana.panels import Json, Panel, Query, Row, choice, dashboard

NOW = Row(
    "Now",
    [
        Panel(
            "Processes",
            "That answer Prometheus, by role; an actor node is one.",
            [Query('count by (role) (shoal_build_info{role=~"$role", instance=~"$instance"})', "{{role}}")],
            "none",
            "stat",
            8,
        ),
        Panel(
            "Actors' workers",
            "That run, and that should.",
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
            "That fire now; the sections of docs/runbook.md have their names.",
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
            "Different versions side by side: an upgrade under way, or forgotten.",
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
            "In the last fifteen minutes: every step is a restart.",
            [Query(chosen("changes(process_start_time_seconds[15m])"), "{{job}} {{instance}}")],
            "none",
        ),
        Panel(
            "Restarts of workers",
            "In the last fifteen minutes; the node's log has their last words.",
            [Query(chosen("increase(shoal_actor_worker_restarts_total[15m])"), "{{instance}}")],
            "none",
        ),
        Panel(
            "Workers that do not run",
            "Wanted but waiting to be started again.",
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
            "Private, workers included.",
            [Query(chosen("shoal_memory_bytes"), "{{job}} {{instance}}")],
            "bytes",
        ),
        Panel(
            "Memory, share of the limit",
            "Of the container or the machine: at 1 the kernel kills.",
            [Query(chosen("shoal_memory_bytes / shoal_memory_limit_bytes"), "{{job}} {{instance}}")],
            "percentunit",
            options={"min": 0, "max": 1},
        ),
        Panel(
            "Memory on GPUs",
            "That torch holds.",
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
            "At 1 no connection can be made.",
            [Query(chosen("process_open_fds / process_max_fds"), "{{job}} {{instance}}")],
            "percentunit",
        ),
        Panel(
            "Turns of the replay server's loop",
            "99th percentile: while a turn lasts, nobody is answered.",
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
            "At most eight a worker.",
            [Query(chosen("shoal_actor_chunks_unacknowledged"), "{{instance}}")],
        ),
        Panel(
            "Chunks Redis does not have",
            "Grows while Redis is slow or refuses; at 64 MiB actors wait.",
            [Query(chosen("shoal_replay_uncommitted_chunks"), "{{instance}}")],
        ),
        Panel(
            "Peers of the replay",
            "That hold their lease; a worker is one.",
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
            "Each second, by reason. Anything but 0 wants a look.",
            [Query(chosen(rate("shoal_replay_rejected_total")), "{{instance}} {{reason}}")],
        ),
        Panel(
            "Redis",
            "Failed commits a second, each tried again; 1 = it takes chunks.",
            [
                Query(chosen(rate("shoal_replay_redis_errors_total")), "{{instance}} errors"),
                Query(chosen("shoal_replay_redis_up"), "{{instance}} up"),
            ],
        ),
        Panel(
            "Chunks sent twice",
            "Each second: sent again by actors, known already to the replay. Connections are lost.",
            [
                Query(chosen(rate("shoal_actor_chunks_resent_total")), "{{instance}} sent again"),
                Query(chosen(rate("shoal_replay_duplicate_chunks_total")), "{{instance}} duplicates"),
            ],
        ),
        Panel(
            "Refused at the ends",
            "Each second: weights by actors, batches with non-finite numbers by the learner.",
            [
                Query(chosen(rate("shoal_actor_weights_rejected_total")), "{{instance}} weights"),
                Query(chosen(rate("shoal_learner_batches_rejected_total")), "{{instance}} batches"),
            ],
        ),
        Panel(
            "Late priorities",
            "Each second: TD errors of transitions that were overwritten meanwhile; prioritised sampling only.",
            [Query(chosen(rate("shoal_replay_late_priorities_total")), "{{instance}}")],
        ),
        Panel(
            "Lost chunks",
            "Found damaged or missing in Redis at the replay server's start.",
            [Query(chosen("shoal_replay_recovery_skipped_chunks"), "{{instance}}")],
            "none",
        ),
        Panel(
            "Recovery",
            "How long the replay server took to read back its transitions at its start.",
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
        "Which processes there are, what they take, what goes wrong.",
        [role, instance],
        [NOW, PROCESSES, MACHINES, QUEUES, ERRORS],
    )
