"""Presets: named settings to start from, given as differences from the defaults by section."""

from __future__ import annotations

from typing import Any

# Values of openai/maddpg's train.py and trainer, line by line in docs/paper.md. Values that equal the defaults are
# written out, too, because the defaults may change. The particle worlds of that time are a setting of the world
# (`world.dynamics=legacy`). The scale of noise counts only where actions cannot be soft choices
# (common/run/preset_choice.py): the published code explores by sampling alone.
_PAPER: dict[str, Any] = {
    "network": {
        "policy_hidden": (64, 64),
        "critic_hidden": (64, 64),
        "share_policies": False,
        "share_critics": False,
        "critic": "mlp",
        "initialisation": "xavier",
        "head": "soft",
    },
    "algorithm": {
        "name": "maddpg",
        "discount": 0.95,
        "target_rate": 0.01,
        "policy_learning_rate": 1e-2,
        "critic_learning_rate": 1e-2,
        "final_learning_rate_share": 1.0,
        "critic_loss": "squared",
        "gradient_clip": 0.5,
        "gradient_clip_by": "tensor",
        "target_actions": "sampled",
        "action_regularisation": 1e-3,
        "policy_weight_decay": 0.0,
        "critic_weight_decay": 0.0,
        "decoupled_weight_decay": False,
        "reward_scale": 1.0,
        "team_spirit": 0.0,
        "critic_sees": "observations",
        "teammates": "buffer",
        "normalise_observations": False,
        "normalise_rewards": False,
    },
    "exploration": {"kind": "gaussian", "scale": 0.3, "final_scale": 0.3, "ladder": 1.0, "random_steps": 0},
    "replay": {
        "capacity": 1_000_000,
        "batch": 1024,
        "samples_per_insert": 10.24,
        "min_size": 25_600,
        "n_step": 1,
        "sampler": "uniform",
        "priority_exponent": 0.0,
    },
    "budget": {"steps": 1_500_000},
}

# The document that Shoal started from: three agents that push themselves by forces. docs/seed.md gives the source of
# each number and the corrections. Values that equal the defaults are written out, too, because the defaults may change.
# The launcher starts the document's 4 parallel worlds (deploy/local/config.py).
_SEED_EPISODE = 80
_SEED: dict[str, Any] = {
    "world": {"max_cycles": _SEED_EPISODE},
    "network": {
        "policy_hidden": (16, 8),
        "critic_hidden": (32, 16),
        "activation": "relu",
        "policy_layer_norm": False,
        "critic_layer_norm": False,
        "critic_weight_norm": False,
        "share_policies": False,
        "share_critics": False,
        "critic": "mlp",
        "initialisation": "uniform",
        "head": "force",
    },
    "algorithm": {
        "name": "maddpg",
        "discount": 0.95,
        "target_rate": 0.02,
        "policy_learning_rate": 1e-2,
        "critic_learning_rate": 1e-2,
        "final_learning_rate_share": 1.0,
        "critic_loss": "huber",
        "gradient_clip": 0.0,
        "action_regularisation": 0.0,
        "policy_weight_decay": 0.0,
        "critic_weight_decay": 1e-5,
        "decoupled_weight_decay": False,
        "reward_scale": 1.0,
        "team_spirit": 0.0,
        "critic_sees": "observations",
        "teammates": "current",
        "team_critic": False,
        "normalise_observations": False,
        "normalise_rewards": False,
    },
    "exploration": {
        "kind": "ornstein_uhlenbeck",
        # The document's amplitude of 2 over its maximum force of 10.
        "scale": 0.2,
        "final_scale": 0.0,
        "decay": "exponential",
        # The document's 0.9999 per step of its four worlds.
        "decay_rate": 0.9999**0.25,
        "theta": 0.15,
        "ladder": 1.0,
        "random_steps": 0,
    },
    "replay": {
        "capacity": 5_000 * _SEED_EPISODE,
        "batch": 1_000,
        # One update per 8 episodes.
        "samples_per_insert": 1_000 / (8 * _SEED_EPISODE),
        "min_size": 1_000,
        "n_step": 1,
        "sampler": "uniform",
        "priority_exponent": 0.0,
    },
    "budget": {"steps": 1_000 * _SEED_EPISODE, "milestone_steps": 1_000 * _SEED_EPISODE},
    "logging": {"tensorboard": "numbered"},
}

# Long episodes: TD3's discount, networks and constant rates (Fujimoto et al. 2018), the replay of a million of most
# published MaMuJoCo results, 3-step returns, and as many updates as the learner can do. Nothing here depends on the
# budget, so a run that is cut or extended learns as planned. Names say nothing about roles here, so agents share
# nothing. common/run/preset_choice.py adapts what depends on the world. Values that equal the defaults are written out,
# too, because the defaults may change.
_CONTROL: dict[str, Any] = {
    "network": {
        "policy_hidden": (256, 256),
        "critic_hidden": (256, 256),
        "share_policies": False,
        "share_critics": False,
    },
    "algorithm": {
        "name": "matd3",
        "discount": 0.99,
        "target_rate": 0.005,
        "policy_learning_rate": 1e-3,
        "critic_learning_rate": 1e-3,
        "final_learning_rate_share": 1.0,
        # Off, as in TD3: Adam rescales its steps, and critics of long episodes have large gradients.
        "gradient_clip": 0.0,
        # Without it, logits grow until every action is at its bound, where tanh has no gradient, and Hopper 3x1 and
        # multiwalker stop learning within minutes. A larger weight keeps actions away from their bounds.
        "action_regularisation": 1e-4,
        "teammates": "current",
    },
    "exploration": {
        "kind": "gaussian",
        "scale": 0.15,
        "final_scale": 0.1,
        "decay": "linear",
        "decay_steps": 200_000,
        "random_steps": 8_000,
    },
    "replay": {
        "capacity": 1_000_000,
        "batch": 256,
        "samples_per_insert": "auto",
        "min_size": 8_000,
        "n_step": 3,
        "priority_exponent": 0.0,
    },
}

PRESETS: dict[str, dict[str, Any]] = {
    "particle": {},
    "control": _CONTROL,
    "fast": {},
    "paper": _PAPER,
    "seed": _SEED,
}
"""Differences from the defaults; `particle` is the defaults, and `fast` is its older name."""
