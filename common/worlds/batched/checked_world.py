"""A world that checks every result of another vectorised world, and adds what Shoal expects of any world.

    actions -> step() of the user's world -> shapes, numbers, ends -> copies of its arrays -> Step

The user's world needs `spec`, `reset(seeds)` and `step(actions)`; `close()`, `render()` and `reset_copies(copies)` are
optional. The checks cost microseconds a step of all copies. A broken contract is a WorldError that names the world, the
step, the copy and the agent.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from common.errors import ConfigError, WorldError
from common.spec import AgentsSpec
from common.worlds.adapters.construction import close_on_fault
from common.worlds.adapters.constructor_options import check_options, refuse_unknown_option
from common.worlds.adapters.contract import describe_result, short_repr
from common.worlds.adapters.faults import agent_text, copy_text, environment_error
from common.worlds.families import Constructor
from common.worlds.world import (
    DEFAULT_EPISODE_RULES,
    BoolArray,
    EpisodeRules,
    Float32Array,
    Float64Array,
    Step,
    check_actions,
)

_PASSED_BY_SHOAL = ("copies", "seed")
"""Parameters that Shoal passes to every constructor; all others are the world's options."""
_FIELDS = ("obs", "reward", "discount", "present", "next_obs", "episode_over")
_STEP = f"a Step ({', '.join(_FIELDS)})"


class CheckedWorld:
    """A user's vectorised world, checked at every step.

    Example: make_world("batched:my_package.my_world", copies=256, seed=0)
    """

    def __init__(self, name: str, inner: Any, copies: int, episodes: EpisodeRules = DEFAULT_EPISODE_RULES) -> None:
        """Raises WorldError for a world without what it needs, ConfigError for a limit that it cannot apply."""
        self.name = name
        self.copies = copies
        self._inner = inner
        inner_spec = _checked_spec(name, inner, copies)
        self.spec, self._inner_state_dim = inner_spec.without_state, inner_spec.state_dim
        self._episodes = episodes
        if episodes.max_steps and episodes.restart_ended and not callable(getattr(inner, "reset_copies", None)):
            raise ConfigError(
                f"{name} has no reset_copies(copies), so Shoal cannot end its episodes after {episodes.max_steps} "
                "steps. Add that method, or leave --max-episode-steps out and let the world end its episodes."
            )
        self._mask_columns = [column for column, _ in self.spec.mask_columns]
        self._obs_shape = (copies, self.spec.obs_dim)
        self._action_shape = (copies, self.spec.action_dim)
        self._agents_shape = (copies, len(self.spec.agents))
        self._age = np.full(copies, -1)
        """Steps since each copy's episode began; -1 before the first reset."""
        self._ended = np.zeros(copies, np.bool_)
        self._departed = np.zeros(self._agents_shape, np.bool_)

    @classmethod
    def of_constructor(
        cls,
        name: str,
        make: Constructor,
        copies: int,
        *,
        seed: int | None,
        options: Mapping[str, Any],
        episodes: EpisodeRules,
        on_made: Callable[[int], object],
        on_fault: Callable[[BaseException], object],
    ) -> CheckedWorld:
        """Calls `make(copies, seed, **options)`, and `on_made` for each copy.

        Raises ConfigError for an unknown option, WorldError for an exception of `make`.
        """
        if seed is None:
            seed = int(np.random.default_rng().integers(2**31))
        inners: list[Any] = []
        with close_on_fault(name, inners, on_fault):
            _check_signature(name, make, options)
            try:
                inner = make(copies=copies, seed=seed, **options)
            except BaseException as e:
                refuse_unknown_option(name, e, options)
                raise environment_error(f"{name}: making {copies} copies", e) from e
            if callable(getattr(inner, "close", None)):
                inners.append(inner)
            world = cls(name, inner, copies, episodes)
            for copy in range(copies):
                on_made(copy)
        return world

    @property
    def departed(self) -> BoolArray:
        """Which agents have terminated in the current episode before the others, [copies, agents]."""
        return self._departed

    def reset(self, seeds: Sequence[int] | None = None) -> Float32Array:
        """Starts a new episode in every copy, copy c from `seeds[c]`; without seeds the world draws the starts."""
        if seeds is not None and len(seeds) != self.copies:
            raise ValueError(f"{self.name}: {len(seeds)} seeds for {self.copies} copies")
        self._age[:] = 0
        self._ended[:] = False
        self._departed[:] = False
        try:
            result = self._inner.reset(None if seeds is None else [int(seed) for seed in seeds])
        except BaseException as e:
            raise environment_error(self._where(), e) from e
        return self._read_observations("the observations", result, self._obs_shape)

    def step(self, actions: Float32Array) -> Step:
        """Steps every copy; copies whose episode ended continue with their next episode, or are absent."""
        check_actions(self, actions, self._action_shape, self._age)
        self._age += 1
        try:
            result = self._inner.step(np.array(actions))  # the caller's array must not change
        except BaseException as e:
            raise environment_error(self._where(), e) from e
        step = self._without_ended(self._read_step(result))
        self._check_agents(step)
        return self._with_time_limit(step)

    def add_metrics(self) -> None:
        """Does nothing, because a vectorised world's steps contain its metrics."""

    def find_state_dim(self) -> int:
        """Returns the length of the user's world's global state; ConfigError if it has none."""
        if not self._inner_state_dim or not callable(getattr(self._inner, "global_state", None)):
            raise ConfigError(
                f"algorithm.critic_sees: {self.name} has no global state. Give its spec a state_dim, add a method "
                "global_state() that returns an array [copies, state_dim], and return next_state in each Step; or set "
                "algorithm.critic_sees=observations."
            )
        return self._inner_state_dim

    def add_global_state(self, state_dim: int) -> None:
        """Adds the global state, of this length, to the spec and to every step."""
        self.spec = msgspec.structs.replace(self.spec, state_dim=state_dim)

    def global_state(self) -> Float32Array:
        """Returns a copy of the states for the next actions `[copies, state]`."""
        try:
            result = self._inner.global_state()
        except BaseException as e:
            raise environment_error(f"{self._where()}: global_state", e) from e
        return self._read_states("global_state()", result)

    def wrap_inner(self, around: Callable[[Any], Any]) -> None:
        """Replaces the user's world by `around(world)`, for example one that announces its calls."""
        self._inner = around(self._inner)

    def close(self) -> None:
        """Closes the user's world if it has a method for it."""
        close = getattr(self._inner, "close", None)
        if callable(close):
            try:
                close()
            except BaseException as e:
                raise environment_error(f"{self.name}: close", e) from e

    def _read_step(self, result: Any) -> Step:
        """Returns the result of a step as new arrays of the right types."""
        if not isinstance(result, tuple) or not len(_FIELDS) <= len(result) <= len(Step._fields):
            raise self._error(f"step returned {describe_result(result)}, not {_STEP}")
        given = Step(*result)
        agents = self._agents_shape
        next_obs = self._read_observations("next_obs", given.next_obs, self._obs_shape)
        is_same = given.obs is given.next_obs  # no episode ended
        step = Step(
            obs=next_obs.copy() if is_same else self._read_observations("obs", given.obs, self._obs_shape),
            reward=self._read_finite("reward", given.reward, agents),
            discount=self._read_finite("discount", given.discount, agents),
            present=self._read_finite("present", given.present, agents),
            next_obs=next_obs,
            episode_over=self._read_flags(given.episode_over),
            metrics=self._read_metrics(given.metrics),
            next_state=self._read_states("next_state", given.next_state) if self.spec.state_dim else None,
        )
        if step.discount.min() < 0 or step.discount.max() > 1:
            self._check_range("discount", step.discount, (step.discount < 0) | (step.discount > 1), "from 0 to 1")
        wrong = step.present * (step.present - 1)
        if wrong.any():
            self._check_range("present", step.present, wrong != 0, "0 or 1")
        return step

    def _without_ended(self, step: Step) -> Step:
        """Marks copies that wait for a reset as absent in the step."""
        ended = self._ended
        if self._episodes.restart_ended or not ended.any():
            return step
        here = np.where(ended[:, None], np.float32(0.0), np.float32(1.0))
        discount = np.where(ended[:, None], np.float32(1.0), step.discount)
        return step._replace(
            reward=step.reward * here,
            discount=discount,
            present=step.present * here,
            episode_over=step.episode_over & ~ended,
        )

    def _check_agents(self, step: Step) -> None:
        """Raises WorldError for an agent that acts again after its end, then records the agents that ended."""
        if step.discount.all() and not self._departed.any():
            return
        here = step.present > 0
        if (again := here & self._departed).any():
            c, i = _first(again)
            raise self._error("has ended in this episode and is present again", c, i)
        self._departed |= here & (step.discount == 0)
        self._departed[step.episode_over] = False

    def _with_time_limit(self, step: Step) -> Step:
        """Returns the step after the episodes that reach the limit were truncated, and starts the next episodes."""
        over, limit = step.episode_over, self._episodes.max_steps
        obs = step.obs
        late = (self._age >= limit) & ~over & ~self._ended if limit else None
        if late is not None and late.any():
            over = over | late
            self._departed[late] = False
            if self._episodes.restart_ended:
                obs[late] = self._reset_copies(np.flatnonzero(late))
        if self._episodes.restart_ended:
            self._age[over] = 0
        else:
            self._ended |= over
        return step._replace(obs=obs, episode_over=over)

    def _reset_copies(self, copies: NDArray[np.intp]) -> Float32Array:
        try:
            result = self._inner.reset_copies(copies)
        except BaseException as e:
            raise environment_error(f"{self._where()}: reset_copies", e) from e
        shape = (len(copies), self.spec.obs_dim)
        return self._read_observations("the observations of reset_copies", result, shape)

    def _read_observations(self, what: str, value: Any, shape: tuple[int, int]) -> Float32Array:
        rows = self._read_array(what, value, shape)
        if not _all_finite(rows):
            c, column = _first(~np.isfinite(rows))
            i = next(i for i, agent in enumerate(self.spec.agents) if column < agent.obs_slice.stop)
            raise self._error(f"was given {rows[c, column]} as observation ({what})", c, i)
        if self._mask_columns:
            self._check_masks(what, rows)
        return rows

    def _check_masks(self, what: str, rows: Float32Array) -> None:
        wrong = (rows[:, self._mask_columns] != 0) & (rows[:, self._mask_columns] != 1)
        if wrong.any():
            c, k = _first(wrong)
            column = self._mask_columns[k]
            i = next(i for i, agent in enumerate(self.spec.agents) if column < agent.obs_slice.stop)
            raise self._error(f"was given {rows[c, column]} in its action mask ({what}), not 0 or 1", c, i)

    def _read_finite(self, what: str, value: Any, shape: tuple[int, int]) -> Float32Array:
        rows = self._read_array(what, value, shape)
        if not _all_finite(rows):
            self._check_range(what, rows, ~np.isfinite(rows), "a finite number")
        return rows

    def _read_states(self, what: str, value: Any) -> Float32Array:
        rows = self._read_array(what, value, (self.copies, self.spec.state_dim))
        if not _all_finite(rows):
            c, column = _first(~np.isfinite(rows))
            raise self._error(f"{what} has {rows[c, column]} at index {column}", c)
        return rows

    def _check_range(self, what: str, rows: Float32Array, wrong: BoolArray, allowed: str) -> None:
        if wrong.any():
            c, i = _first(wrong)
            raise self._error(f"was given {rows[c, i]} as {what}, not {allowed}", c, i)

    def _read_flags(self, value: Any) -> BoolArray:
        values = self._read_array("episode_over", value, (self.copies,))
        if ((values != 0) & (values != 1)).any():
            raise self._error(f"episode_over is {short_repr(value)}, not True or False for each copy")
        return values > 0

    def _read_metrics(self, value: Any) -> dict[str, Float64Array]:
        if not isinstance(value, Mapping):
            raise self._error(f"metrics is {short_repr(value)}, not a dict of arrays by name")
        return {
            str(name): self._read_array(f"metrics[{name!r}]", rows, self._agents_shape).astype(np.float64)
            for name, rows in value.items()
        }

    def _read_array(self, what: str, value: Any, shape: tuple[int, ...]) -> Float32Array:
        """Returns a copy of an array of numbers, in float32; WorldError for another shape."""
        try:
            values = np.asarray(value)
            rows = np.array(values, np.float32, order="C")
        except Exception as e:  # noqa: BLE001  (numpy's, or that of the user's array type)
            raise self._error(f"{what} is {short_repr(value)}: {e}") from None
        if values.dtype.kind not in "biuf":
            raise self._error(f"{what} is {short_repr(value)}, an array of {values.dtype} and not of numbers")
        if rows.shape != shape:
            kind = "sum obs" if "obs" in what else "state" if "state" in what else "agents"
            axes = "[copies]" if len(shape) == 1 else f"[copies, {kind}]"
            raise self._error(f"{what} has the shape {list(rows.shape)}, not {axes} = {list(shape)}")
        return rows

    def _error(self, what: object, copy: int | None = None, agent: int | None = None) -> WorldError:
        who = f"agent {agent_text(self.spec.agents[agent].name)} " if agent is not None else ""
        return WorldError(f"{self._where(copy)}: {who}{what}", copy)

    def _where(self, copy: int | None = None) -> str:
        age = int(self._age.max() if copy is None else self._age[copy])
        which = f" of {copy_text(copy, self.copies)}" if copy is not None else ""
        return f"{self.name}: step {age}{which}" if age else f"{self.name}: reset{which}"


def _checked_spec(name: str, inner: Any, copies: int) -> AgentsSpec:
    """Returns the spec of a user's world; WorldError if the world lacks what it needs."""
    if inner is None:
        raise WorldError(f"{name}: make returned None; return the world")
    for method in ("reset", "step"):
        if not callable(getattr(inner, method, None)):
            argument = "seeds" if method == "reset" else "actions"
            raise WorldError(f"{name}: {type(inner).__name__} has no method {method}({argument})")
    try:
        spec = inner.spec
    except AttributeError:
        raise WorldError(f"{name}: {type(inner).__name__} has no spec; make one by common.spec.joint_spec") from None
    except BaseException as e:
        raise environment_error(f"{name}: spec", e) from e
    if not isinstance(spec, AgentsSpec):
        raise WorldError(f"{name}: spec is {short_repr(spec)}; make one by common.spec.joint_spec")
    made = getattr(inner, "copies", copies)
    if made != copies:
        raise WorldError(f"{name}: make was asked for {copies} copies and made {made!r}; it must use its argument")
    return spec


def _check_signature(name: str, make: Constructor, options: Mapping[str, Any]) -> None:
    """Raises ConfigError for options that `make` does not accept, or if it takes no copies and no seed."""
    for reserved in _PASSED_BY_SHOAL:
        if reserved in options:
            raise ConfigError(
                f"{name}: Shoal passes {reserved!r} itself. Leave world.{reserved} out; --copies and --seed set it."
            )
    try:
        parameters = inspect.signature(make).parameters
    except (TypeError, ValueError):
        return
    takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    missing = [parameter for parameter in _PASSED_BY_SHOAL if parameter not in parameters and not takes_all]
    if missing:
        raise ConfigError(
            f"{name}: {getattr(make, '__name__', 'make')} does not take {' and '.join(missing)}. Shoal calls "
            "make(copies=..., seed=..., **options)."
        )
    check_options(name, without_passed(make), options)


def without_passed(make: Constructor) -> Constructor:
    """Returns a callable whose signature is that of `make` without copies and seed, which are not options."""

    def options(**_options: Any) -> None:
        """Has a signature and does nothing."""

    try:
        signature = inspect.signature(make)
    except (TypeError, ValueError):
        return make
    rest = [parameter for parameter in signature.parameters.values() if parameter.name not in _PASSED_BY_SHOAL]
    options.__signature__ = signature.replace(parameters=rest)  # type: ignore[attr-defined]
    return options


def _all_finite(rows: Float32Array) -> bool:
    # If the sum of squares is finite, all numbers are; only an overflow needs the mask.
    return bool(np.isfinite(np.vdot(rows, rows)) or np.isfinite(rows).all())


def _first(wrong: BoolArray) -> tuple[int, int]:
    """Returns the row and column of the first True."""
    row, column = np.argwhere(wrong)[0]
    return int(row), int(column)
