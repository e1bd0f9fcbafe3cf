"""The dashboard of a run: does it learn, how fast, is the ratio held, how old are weights, who waits for whom."""

from __future__ import annotations

from deploy.grafana.expressions import by_run, quantiles, rate
from deploy.grafana.panels import Json, Panel, Query, Row, choice, dashboard

_SHARES = {"custom": {"fillOpacity": 60, "stacking": {"mode": "normal"}}, "min": 0, "max": 1}


def stat(title: str, expr: str, unit: str, description: str) -> Panel:
    """Returns one large number for each run."""
    return Panel(title, description, [Query(expr, "{{run}}")], unit, "stat", 4, {"decimals": 1})


AGE_OF_CHECKPOINT = by_run("time() - (shoal_learner_last_checkpoint_timestamp_seconds > 0)", how="max")
SAMPLED = by_run(rate("shoal_replay_sampled_transitions_total"))
INSERTED = by_run(rate("shoal_replay_ingested_transitions_total"))
WORKERS = by_run("shoal_actor_workers_alive")

NOW = Row(
    "Now",
    [
        stat("Budget used", by_run("shoal_learner_progress_ratio", how="max"), "percentunit", "1 = the run is done."),
        stat(
            "Return",
            by_run("shoal_replay_episode_return", how="avg"),
            "none",
            "Mean over the last 100 episodes or more, exploration included, summed over agents.",
        ),
        stat("Environment steps", by_run("shoal_replay_run_env_steps"), "short", "Joint steps of the whole run."),
        stat("Updates a second", by_run(rate("shoal_learner_updates_total")), "none", "The learner is the bottleneck."),
        stat(
            "Samples per insert",
            by_run("shoal_replay_samples_per_insert", how="avg"),
            "none",
            "Since the warm-up; the target stands in the graph below.",
        ),
        stat("Last checkpoint", AGE_OF_CHECKPOINT, "s", "Age: what a killed learner would lose."),
    ],
)

LEARNING = Row(
    "Learning",
    [
        Panel(
            "Return of episodes",
            "Mean over the last 100 episodes or more, exploration included, summed over agents.",
            [Query(by_run("shoal_replay_episode_return", how="avg"), "{{run}}")],
        ),
        Panel(
            "Return, agent by agent",
            "One agent far behind its like: look at its observations and rewards.",
            [Query(by_run("shoal_replay_agent_episode_return", "agent", how="avg"), "{{run}} {{agent}}")],
        ),
        Panel(
            "Value (Q)",
            "Mean of the critics' values. Growing without bound while returns do not: critics diverge.",
            [Query(by_run("shoal_learner_q_mean", how="avg"), "{{run}}")],
        ),
        Panel(
            "Critic loss",
            "Mean over agents. NaN or a steep climb: learning rate, reward scale, target rate.",
            [Query(by_run("shoal_learner_critic_loss", how="avg"), "{{run}}")],
        ),
        Panel(
            "Policy loss",
            "About minus the value.",
            [Query(by_run("shoal_learner_policy_loss", how="avg"), "{{run}}")],
        ),
        Panel(
            "Gradient norms",
            "Largest over agents, before clipping. Always above the clip: steps are as long as the clip allows.",
            [
                Query(by_run("shoal_learner_critic_gradient_norm", how="max"), "{{run}} critic"),
                Query(by_run("shoal_learner_policy_gradient_norm", how="max"), "{{run}} policy"),
            ],
        ),
        Panel(
            "Size of inputs",
            "Largest over agents, root mean square. Beyond 100 or below 0.01: scale the observation, or reward_scale.",
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
            "Collected by actors and stored by the replay. They part only while connections are lost.",
            [
                Query(by_run(rate("shoal_actor_env_steps_total")), "{{run}} collected"),
                Query(INSERTED, "{{run}} stored"),
            ],
        ),
        Panel(
            "Updates a second",
            "Updates of all agents.",
            [Query(by_run(rate("shoal_learner_updates_total")), "{{run}}")],
        ),
        Panel(
            "Samples a second",
            "Transitions learnt from, repeats counted.",
            [Query(by_run(rate("shoal_learner_samples_total")), "{{run}}")],
        ),
        Panel("Time of one update", "Median and 99th percentile.", quantiles("shoal_learner_update_seconds"), "s"),
        Panel(
            "Chunk until acknowledged",
            "From its collection until it is durable: what a killed worker loses.",
            quantiles("shoal_actor_chunk_ack_seconds"),
            "s",
        ),
        Panel(
            "From actors to the replay",
            "Bytes of transitions.",
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
            "Realised and target: within a tenth while both sides live.",
            [
                Query(f"{SAMPLED} / {INSERTED}", "{{run}} realised"),
                Query(by_run("shoal_replay_target_samples_per_insert", how="max"), "{{run}} target"),
            ],
            "none",
        ),
        Panel(
            "How far the learner is behind",
            "In samples. At the upper bound actors wait, at the lower the learner does.",
            [
                Query(by_run("shoal_replay_rate_limiter_error_samples"), "{{run}} behind"),
                Query(by_run("shoal_replay_rate_limiter_upper_bound_samples"), "{{run}} actors wait"),
                Query(by_run("shoal_replay_rate_limiter_lower_bound_samples"), "{{run}} learner waits"),
            ],
        ),
        Panel(
            "Transitions in the replay",
            "Sampling begins at the least number; at the capacity the oldest go.",
            [
                Query(by_run("shoal_replay_transitions"), "{{run}} held"),
                Query(by_run("shoal_replay_min_size_transitions"), "{{run}} least"),
                Query(by_run("shoal_replay_capacity_transitions"), "{{run}} capacity"),
            ],
        ),
        Panel(
            "Policy lag",
            "Versions between the newest weights and those a chunk was collected with.",
            quantiles("shoal_replay_policy_lag_versions"),
        ),
        Panel(
            "Age of weights at actors",
            "Since the worst worker heard the last broadcast. Over 6 s: broadcasts do not arrive.",
            [Query(by_run("shoal_actor_weights_age_seconds", how="max"), "{{run}}")],
            "s",
        ),
        Panel(
            "Versions of the weights",
            "Newest at the learner, oldest in use.",
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
            "What actors' workers do",
            "Shares of their time. Waiting for credit is how the ratio is held: the learner sets the pace.",
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
            options=_SHARES,
        ),
        Panel(
            "What the learner does",
            "Shares of its time. What is neither is publishing, saving, logging, and waits of less than 0.1 s.",
            [
                Query(by_run(rate("shoal_learner_update_seconds_sum"), how="avg"), "{{run}} updating"),
                Query(by_run(rate("shoal_learner_waiting_seconds_total"), how="avg"), "{{run}} waiting for batches"),
            ],
            "percentunit",
            width=12,
            options=_SHARES,
        ),
        Panel(
            "What the replay holds back",
            "Share of the time in which a side had to wait, by what for.",
            [Query(by_run(rate("shoal_replay_blocked_seconds_total"), "side", "cause"), "{{run}} {{side}}: {{cause}}")],
            "percentunit",
            width=12,
        ),
        Panel(
            "Standstill",
            "How long a side that waits has got no further. Over 10 s is in the log, over 60 s an alert.",
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
        Panel("Commits to Redis", "Median and 99th percentile.", quantiles("shoal_replay_redis_commit_seconds"), "s"),
        Panel(
            "Chunks under way",
            "Kept by actors until acknowledged; in the replay's memory until Redis has them.",
            [
                Query(by_run("shoal_actor_chunks_unacknowledged"), "{{run}} unacknowledged"),
                Query(by_run("shoal_replay_uncommitted_chunks"), "{{run}} uncommitted"),
            ],
        ),
        Panel(
            "Age of the last checkpoint",
            "What a killed learner would lose.",
            [Query(AGE_OF_CHECKPOINT, "{{run}}")],
            "s",
        ),
        Panel(
            "Time to write a checkpoint",
            "Median and 99th percentile; training waits for it.",
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
        "Does a run learn, how fast, is its ratio held, who waits for whom.",
        [choice("run", "Run", "label_values(shoal_run_info, run)")],
        [NOW, LEARNING, THROUGHPUT, RATIO, WAITS, DURABILITY],
    )
