"""The installed mpe2 with the spec of the batched world of a scenario, for evaluations and comparisons.

`make_world("mpe2:simple_spread", ...)` takes the options of `simple_spread` and steps the installed package. With
`benchmark_data` its steps contain mpe2's benchmark data under the names of the batched world.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import msgspec
import numpy as np

from common.errors import ConfigError
from common.spec import AgentSpec, AgentsSpec
from common.worlds.adapters.construction import Codec, Layout, make_copies
from common.worlds.adapters.pettingzoo_world import PettingZooWorld
from common.worlds.particle.mpe import MpeWorld
from common.worlds.particle.scenario import Scenario
from common.worlds.world import EpisodeRules, Float32Array, Float64Array, Step


class RealMpe2(PettingZooWorld):
    """Copies of mpe2's own environment."""

    benchmark: tuple[str, ...] = ()
    """Names of its benchmark data; empty if it was not requested."""

    def step(self, actions: Float32Array) -> Step:
        """Steps every copy; adds mpe2's benchmark data."""
        step = super().step(actions)
        return step._replace(metrics=self._metrics()) if self.benchmark else step

    def _metrics(self) -> dict[str, Float64Array]:
        """Returns name -> [copies, agents], NaN where mpe2 has fewer values for an agent than for the others."""
        values = np.full((len(self.benchmark), self.copies, len(self.spec.agents)), np.nan)
        for c, infos in enumerate(self.infos):
            for i, agent in enumerate(self.spec.agents):
                agent_values = _flat(infos[agent.name]["benchmark_data"])
                # In simple_adversary the adversary's data is the last value only.
                values[len(self.benchmark) - len(agent_values) :, c, i] = agent_values
        return dict(zip(self.benchmark, values, strict=True))


def real_mpe2(
    name: str,
    scenario: Scenario[Any],
    spec: AgentsSpec,
    copies: int,
    *,
    seed: int | None,
    episodes: EpisodeRules,
    on_made: Callable[[int], object],
    on_fault: Callable[[BaseException], object],
) -> RealMpe2:
    """Makes copies of mpe2's own environment. Raises ConfigError for options that only the batched world has."""
    options = msgspec.structs.asdict(scenario.options)
    if options.pop("dynamics") != "mpe2":
        raise ConfigError(f"{name}: mpe2 has no dynamics='legacy'. Leave it out, or use the batched world.")
    if options.pop("curriculum_stage", 0):
        # mpe2 1.1.1 cannot leave stage 0: a property of BaseScenario swallows what set_curriculum_stage() assigns.
        raise ConfigError(f"{name}: mpe2 never leaves curriculum_stage=0. Use the batched world.")
    try:
        make = import_module(f"mpe2.{scenario.mpe2_module}").parallel_env
    except ImportError as e:
        raise ConfigError(f"{name}: cannot import mpe2: {e}; install it with: pip install mpe2") from e
    codecs = [Codec(_encode, _decoder(agent, continuous=options["continuous_actions"])) for agent in spec.agents]
    envs = make_copies(name, make, copies, options, on_made, on_fault=on_fault)
    world = RealMpe2(name, envs, seed, Layout(spec, codecs), episodes)
    if options["benchmark_data"]:
        world.benchmark = tuple(scenario.metrics(MpeWorld(name, scenario, 1, 0).particles))
    return world


def _flat(data: Any) -> Float64Array:
    """Returns one agent's benchmark data, a number or a tuple of numbers and arrays; -1 stands for None."""
    values = data if isinstance(data, tuple) else (data,)
    return np.concatenate([np.atleast_1d(np.float64(-1.0 if value is None else value)) for value in values])


def _encode(obs: Any) -> Float32Array:
    return np.asarray(obs, np.float32)


def _decoder(agent: AgentSpec, *, continuous: bool) -> Any:
    """Returns a function that converts an action for mpe2: to a clipped Box, or to one index, move + 5 * message."""

    def clip(rows: Float32Array) -> list[Float32Array]:
        # mpe2 clips too, but stores a warning for each clipped action forever.
        return list(np.clip(rows, np.float32(0.0), np.float32(1.0)))

    def choice_index(rows: Float32Array) -> list[int]:
        index, factor = np.zeros(len(rows), int), 1
        for part in agent.part_slices:
            index += factor * rows[:, part].argmax(axis=1)
            factor *= part.stop - part.start
        return index.tolist()

    return clip if continuous else choice_index
