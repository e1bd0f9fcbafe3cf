"""Plays a trained team in mpe2 with numpy and safetensors, without Shoal: python examples/numpy_team.py runs/spread.

Supports the default head `box`, no stacked history and no recurrent policies; docs/export.md describes the others.
"""

import json
import sys

import numpy as np
from safetensors import safe_open

ACTIVATIONS = {
    "relu": lambda x: np.maximum(x, 0),
    "leaky_relu": lambda x: np.maximum(x, 0.01 * x),
    "tanh": np.tanh,
    "elu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
    "gelu": lambda x: x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
    "silu": lambda x: x / (1 + np.exp(-x)),
}


def load_team(path):
    """Returns a function from observation [obs_dim] to action for each agent."""
    with safe_open(path, "numpy") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a dict)
        run = json.loads(file.metadata()["run"])
    agents, network = run["joint"]["agents"], run["spec"]["network"]
    head, activate = network["head"], ACTIVATIONS[network.get("activation", "relu")]
    if run["spec"]["world"].get("history"):
        raise ValueError(f"{path}: this example has no stacked history (world.history); docs/export.md shows how")
    if network.get("recurrent"):
        raise ValueError(f"{path}: this example has no recurrent policies; docs/export.md shows how")
    if head != "box" or any(f"{agent['name']}/0/weight" not in tensors for agent in agents):
        raise ValueError(f"{path}: this example needs the head box, not {head}, and agents that do not learn by joint")

    def act(agent, obs):
        x = obs
        depth = len(network["policy_hidden"])
        for i in range(depth + 1):
            layer = f"{agent['name']}/{i}"
            x = x @ tensors[f"{layer}/weight"] + tensors[f"{layer}/bias"]
            if f"{layer}/norm_gain" in tensors:
                x = (x - x.mean()) / np.sqrt(x.var() + 1e-5)
                x = x * tensors[f"{layer}/norm_gain"] + tensors[f"{layer}/norm_bias"]
            x = activate(x) if i < depth else x
        sizes = [part["n"] for part in agent["parts"] if part["type"] == "categorical"]
        allowed = obs[len(obs) - sum(sizes) :] if agent.get("masked") else np.ones(sum(sizes))  # its action mask
        actions = []
        for part in agent["parts"]:  # an agent that moves and speaks has two parts
            logits, x = np.split(x, [part["n"] if part["type"] == "categorical" else len(part["low"])])
            if part["type"] == "categorical":
                own, allowed = np.split(allowed, [part["n"]])
                actions.append(int(np.where(own, logits, -np.inf).argmax()))
            else:
                low, high = np.float32(part["low"]), np.float32(part["high"])
                actions.append((high + low) / 2 + (high - low) / 2 * np.tanh(logits))
        return actions[0] if len(actions) == 1 else actions

    return {agent["name"]: lambda obs, agent=agent: act(agent, obs) for agent in agents}


if __name__ == "__main__":
    from mpe2 import simple_spread_v3

    team = load_team(f"{sys.argv[1]}/policy.safetensors")
    world = simple_spread_v3.parallel_env(continuous_actions=True)
    (obs, _), total = world.reset(seed=0), 0.0
    while world.agents:
        obs, rewards, *_ = world.step({name: team[name](obs[name]) for name in world.agents})
        total += sum(rewards.values())
    print(f"return of one episode, summed over agents: {total:.2f}")  # noqa: T201
