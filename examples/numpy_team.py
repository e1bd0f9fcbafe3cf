"""Plays a trained team in mpe2 with numpy and safetensors, without Shoal: python examples/numpy_team.py runs/spread.

Supports the default head `box` and no stacked history; docs/export.md describes the others.
"""

import json
import sys

import numpy as np
from safetensors import safe_open


def load_team(path):
    """Returns a function from observation [obs_dim] to action for each agent."""
    with safe_open(path, "numpy") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a dict)
        run = json.loads(file.metadata()["run"])
    agents, head = run["joint"]["agents"], run["spec"]["network"]["head"]
    if run["spec"]["world"].get("history"):
        raise ValueError(f"{path}: this example has no stacked history (world.history); docs/export.md shows how")
    if head != "box" or any(f"{agent['name']}/0/weight" not in tensors for agent in agents):
        raise ValueError(f"{path}: this example needs the head box, not {head}, and agents that do not learn by joint")

    def act(agent, obs):
        x = obs
        depth = sum(name.startswith(f"{agent['name']}/") for name in tensors) // 2
        for i in range(depth):
            x = x @ tensors[f"{agent['name']}/{i}/weight"] + tensors[f"{agent['name']}/{i}/bias"]
            x = np.maximum(x, 0) if i < depth - 1 else x
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
