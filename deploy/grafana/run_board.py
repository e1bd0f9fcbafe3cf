"""The run dashboard: learning, throughput, the ratio of samples to inserts, age of weights, and waits."""

from __future__ import annotations

from deploy.grafana.expressions import by_run, quantiles, rate
from deploy.grafana.panels import Json, Panel, Query, Row, dashboard, label_variable

_FRACTIONS = {"custom": {"fillOpacity": 60, "stacking": {"mode": "normal"}}, "min": 0, "max": 1}


def stat(title: str, expr: str, unit: str, description: str) -> Panel:
    """Returns a panel with one large number for each run."""
    return Panel(title, description, [Query(expr, "{{run}}")], unit, "stat", 4, {"decimals": 1})


AGE_OF_CHECKPOINT = by_run("time() - (shoal_learner_last_checkpoint_timestamp_seconds > 0)", how="max")
SAMPLED = by_run(rate("shoal_replay_sampled_transitions_total"))
INSERTED = by_run(rate("shoal_replay_ingested_transitions_total"))
WORKERS = by_run("shoal_actor_workers_alive")

NOW = Row(
    "Now",
    [
        stat(
            "Budget used",
            by_run("shoal_learner_progress_ratio", how="max"),
            "percentunit",
            "100 % when the run is done.",
        ),
        stat(
            "Return",
            by_run("shoal_replay_episode_return", how="avg"),
            "none",
            "Mean over at least the last 100 episodes, exploration included, summed over agents.",
        ),
        stat("Environment steps", by_run("shoal_replay_run_env_steps"), "short", "Environment steps of the whole run."),
        stat(
            "Updates a second",
            by_run(rate("shoal_learner_updates_total")),
            "none",
            "Updates per second. One update is a gradient step of all critics.",
        ),
        stat(
            "Samples per insert",
            by_run("shoal_replay_samples_per_insert", how="avg"),
            "none",
            "Realised ratio since the end of the warm-up. The graph below shows the target.",
        ),
        stat(
            "Last checkpoint",
            AGE_OF_CHECKPOINT,
            "s",
            "Age of the last checkpoint: the training that a killed learner would lose.",
        ),
    ],
)

LEARNING = Row(
    "Learning",
    [
        Panel(
            "Return of episodes",
            "Mean over at least the last 100 episodes, exploration included, summed over agents.",
            [Query(by_run("shoal_replay_episode_return", how="avg"), "{{run}}")],
        ),
        Panel(
            "Return in evaluations",
            "Mean return of the newest evaluation while the run trains, without exploration, summed over agents.",
            [Query(by_run("shoal_learner_evaluation_return", how="max"), "{{run}}")],
        ),
        Panel(
            "Time of evaluations",
            "Fraction of the time in which evaluations play, in a process of the learner; at most `share_of_time`.",
            [Query(by_run(rate("shoal_learner_evaluating_seconds_total")), "{{run}}")],
            "percentunit",
        ),
        Panel(
            "Return, agent by agent",
            "Mean by agent. If one agent's return is far below the others', check its observations and rewards.",
            [Query(by_run("shoal_replay_agent_episode_return", "agent", how="avg"), "{{run}} {{agent}}")],
        ),
        Panel(
            "Value (Q)",
            "Mean of the critics' values. If it grows without bound while returns do not, the critics diverge.",
            [Query(by_run("shoal_learner_q_mean", how="avg"), "{{run}}")],
        ),
        Panel(
            "Critic loss",
            "Mean over agents. If it is NaN or climbs steeply, check learning rate, reward scale and target rate.",
            [Query(by_run("shoal_learner_critic_loss", how="avg"), "{{run}}")],
        ),
        Panel(
            "Policy loss",
            "Approximately minus the value.",
            [Query(by_run("shoal_learner_policy_loss", how="avg"), "{{run}}")],
        ),
        Panel(
            "Entropy and temperature",
            "Mean over agents with stochastic policies; empty without masac, isac or hasac.",
            [
                Query(by_run("shoal_learner_entropy", how="avg"), "{{run}} entropy"),
                Query(by_run("shoal_learner_temperature", how="avg"), "{{run}} temperature"),
            ],
        ),
        Panel(
            "Gradient norms",
            "Maximum over agents, before clipping. If it always exceeds the clipping norm, every step is clipped.",
            [
                Query(by_run("shoal_learner_critic_gradient_norm", how="max"), "{{run}} critic"),
                Query(by_run("shoal_learner_policy_gradient_norm", how="max"), "{{run}} policy"),
            ],
        ),
        Panel(
            "Size of observations and rewards",
            "Root mean square, maximum over agents. Outside 0.01 to 100, scale observations, or set reward_scale.",
            [
                Query(by_run("shoal_learner_observation_size", how="max"), "{{run}} observation"),
                Query(by_run("shoal_learner_reward_size", how="max"), "{{run}} reward"),
            ],
        ),
    ],
)

THROUGHPUT = Row(
    "Throughput",
    [
        Panel(
            "Environment steps a second",
            "Steps collected by actors, and stored by the replay server. They differ only while connections are lost.",
            [
                Query(by_run(rate("shoal_actor_env_steps_total")), "{{run}} collected"),
                Query(INSERTED, "{{run}} stored"),
            ],
        ),
        Panel(
            "Updates a second",
            "Updates per second. One update is a gradient step of all critics.",
            [Query(by_run(rate("shoal_learner_updates_total")), "{{run}}")],
        ),
        Panel(
            "Samples a second",
            "Transitions in sampled batches; a transition counts each time it is sampled.",
            [Query(by_run(rate("shoal_learner_samples_total")), "{{run}}")],
        ),
        Panel(
            "Time of one update",
            "Median and 99th percentile of the duration of one update.",
            quantiles("shoal_learner_update_seconds"),
            "s",
        ),
        Panel(
            "Time until a chunk is acknowledged",
            "Time from collection until the chunk is durable. A killed worker can lose chunks of this age.",
            quantiles("shoal_actor_chunk_ack_seconds"),
            "s",
        ),
        Panel(
            "Traffic from actors to the replay server",
            "Bytes of transitions per second.",
            [Query(by_run(rate("shoal_actor_chunk_bytes_total")), "{{run}}")],
            "Bps",
        ),
    ],
)

RATIO = Row(
    "Ratio and staleness",
    [
        Panel(
            "Samples per insert",
            "Realised and target ratio. They agree within 10 % while both sides are alive.",
            [
                Query(f"{SAMPLED} / {INSERTED}", "{{run}} realised"),
                Query(by_run("shoal_replay_target_samples_per_insert", how="max"), "{{run}} target"),
            ],
            "none",
        ),
        Panel(
            "How far the learner is behind",
            "Samples behind the target. Actors wait at the upper bound, the learner at the lower bound.",
            [
                Query(by_run("shoal_replay_rate_limiter_error_samples"), "{{run}} behind"),
                Query(by_run("shoal_replay_rate_limiter_upper_bound_samples"), "{{run}} actors wait"),
                Query(by_run("shoal_replay_rate_limiter_lower_bound_samples"), "{{run}} learner waits"),
            ],
        ),
        Panel(
            "Transitions in the replay",
            "Sampling starts at the minimum size. At the capacity, new transitions overwrite the oldest.",
            [
                Query(by_run("shoal_replay_transitions"), "{{run}} stored"),
                Query(by_run("shoal_replay_min_size_transitions"), "{{run}} minimum"),
                Query(by_run("shoal_replay_capacity_transitions"), "{{run}} capacity"),
            ],
        ),
        Panel(
            "Policy lag",
            "Versions between the newest weights and the weights that a chunk was collected with.",
            quantiles("shoal_replay_policy_lag_versions"),
        ),
        Panel(
            "Age of weights at actors",
            "Longest time since a worker received a broadcast. Above 6 s, broadcasts do not arrive.",
            [Query(by_run("shoal_actor_weights_age_seconds", how="max"), "{{run}}")],
            "s",
        ),
        Panel(
            "Versions of the weights",
            "Newest at the learner, and oldest in use by a worker.",
            [
                Query(by_run("shoal_learner_weights_version", how="max"), "{{run}} newest"),
                Query(by_run("shoal_actor_weights_version", how="min"), "{{run}} oldest in use"),
            ],
        ),
    ],
)

WAITS = Row(
    "Who waits for whom",
    [
        Panel(
            "Time of the actor workers",
            "Fractions of the workers' time. Waiting for credit is normal: the learner is the bottleneck.",
            [
                Query(
                    f"{by_run(rate('shoal_actor_collecting_seconds_total'))} / on (run) {WORKERS}", "{{run}} collecting"
                ),
                Query(
                    f"{by_run(rate('shoal_actor_waiting_seconds_total'), 'for')} / on (run) group_left () {WORKERS}",
                    "{{run}} waiting for {{for}}",
                ),
            ],
            "percentunit",
            width=12,
            options=_FRACTIONS,
        ),
        Panel(
            "Time of the learner",
            "Fractions of the learner's time. The rest is publishing, saving, logging, and waits of less than 0.1 s.",
            [
                Query(by_run(rate("shoal_learner_update_seconds_sum"), how="avg"), "{{run}} updating"),
                Query(by_run(rate("shoal_learner_waiting_seconds_total"), how="avg"), "{{run}} waiting for batches"),
            ],
            "percentunit",
            width=12,
            options=_FRACTIONS,
        ),
        Panel(
            "Blocked time",
            "Fraction of the time in which actors or the learner had to wait, by cause.",
            [Query(by_run(rate("shoal_replay_blocked_seconds_total"), "side", "cause"), "{{run}} {{side}}: {{cause}}")],
            "percentunit",
            width=12,
        ),
        Panel(
            "Standstill",
            "Time without progress of a waiting side. Above 10 s it is logged, above 60 s an alert fires.",
            [
                Query(
                    by_run("shoal_replay_standstill_seconds", "side", "cause", how="max"),
                    "{{run}} {{side}}: {{cause}}",
                )
            ],
            "s",
            width=12,
        ),
    ],
)

DURABILITY = Row(
    "Durability",
    [
        Panel(
            "Commits to Redis",
            "Median and 99th percentile of the duration of one group commit.",
            quantiles("shoal_replay_redis_commit_seconds"),
            "s",
        ),
        Panel(
            "Chunks in flight",
            "Unacknowledged: pending at the actors. Uncommitted: at the replay server, not yet stored in Redis.",
            [
                Query(by_run("shoal_actor_chunks_unacknowledged"), "{{run}} unacknowledged"),
                Query(by_run("shoal_replay_uncommitted_chunks"), "{{run}} uncommitted"),
            ],
        ),
        Panel(
            "Age of the last checkpoint",
            "Time since the last checkpoint: the training that a killed learner would lose.",
            [Query(AGE_OF_CHECKPOINT, "{{run}}")],
            "s",
        ),
        Panel(
            "Duration of writing a checkpoint",
            "Median and 99th percentile. Training pauses while a checkpoint is written.",
            quantiles("shoal_learner_checkpoint_seconds"),
            "s",
        ),
    ],
)


def run_board() -> Json:
    """Returns the dashboard."""
    return dashboard(
        "shoal-run",
        "Shoal: run",
        "Learning, throughput, the ratio of samples to inserts, age of weights, and waits.",
        [label_variable("run", "Run", "label_values(shoal_run_info, run)")],
        [NOW, LEARNING, THROUGHPUT, RATIO, WAITS, DURABILITY],
    )
