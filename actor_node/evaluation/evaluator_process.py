"""The evaluator process of a learner: evaluates the weights that it receives, without exploration and without torch.

usage: python -m actor_node.evaluation.evaluator_process PIPE PARENT

    learner (learner_node/evaluation/evaluator.py)           this process
       --- Run ------------------------------------------->  makes and closes the world once
       <-- READY ------------------------------------------
       --- EvaluationRequest, weights -------------------->  makes the world, plays, closes the world
       <-- EvaluationReply --------------------------------

The process waits for its parent's messages only, and ends with its parent. The parent kills it if an evaluation takes
too long. Each evaluation has separate worlds and random generators, so equal weights give equal figures.
"""

from __future__ import annotations

import contextlib
import math
import os
import sys
import time
from multiprocessing.connection import Connection

import msgspec
import numpy as np

from actor_node.evaluation.evaluate import evaluate_team
from actor_node.evaluation.rollouts.copies import exception_text
from actor_node.evaluation.rollouts.rollout import PlayOptions
from actor_node.evaluation.task import EvalTask, make_eval_copy, make_eval_world
from actor_node.evaluation.teams import trained_team
from common.errors import ShoalError
from common.policy.file import PolicyFile
from common.policy.heads import Floats
from common.process.children.child_process import kill_session_with_parent, make_pipe_private
from common.process.exit import DONE
from common.run.evaluations import READY, EvaluationReply, EvaluationRequest, ScheduledEvaluation
from common.run.run import Run
from common.worlds import REAL_MPE2, is_batched, is_foreign

SCHEDULED_SEED = 2_000_000
"""Seed of the first episode. It differs from the seeds of `shoal evaluate`, so that a team that was chosen by these
evaluations is measured on other episodes."""
NICENESS = 5
"""How much the process gives way to learner and actors on the same cores."""
MAX_RETURN = 1e100
"""Largest size of a return, which a message can carry."""
_COPIES = 250
"""Largest number of copies of a world that steps its copies together; 50 take twice the time for the same episodes."""
_UNCOUNTED_COPIES = 20
"""Copies of such a world if the time limits the episodes: those of the shortest evaluation."""


def main() -> None:
    """Serves the learner at the other end of the pipe until it ends."""
    pipe, parent = Connection(int(sys.argv[1])), int(sys.argv[2])
    make_pipe_private(pipe)
    kill_session_with_parent(parent)
    os.nice(NICENESS)
    with contextlib.suppress(EOFError, OSError):  # the learner has ended
        serve(pipe)
    sys.stdout.flush()
    sys.stderr.flush()
    # At once, even if an environment left threads running.
    os._exit(DONE)


def serve(pipe: Connection) -> None:
    """Receives a run, then evaluates each request; raises EOFError or OSError once the pipe is closed."""
    run = msgspec.json.decode(pipe.recv_bytes(), type=Run)
    _warm_up(run)
    pipe.send_bytes(READY)
    while True:
        request = msgspec.json.decode(pipe.recv_bytes(), type=EvaluationRequest)
        flat = np.frombuffer(pipe.recv_bytes(), "<f4").astype(np.float32)
        try:
            reply = EvaluationReply(evaluate_weights(run, request, flat))
        except Exception as e:  # noqa: BLE001  (the user's environment may raise anything; the learner logs it)
            reply = EvaluationReply(error=exception_text(e))
        pipe.send_bytes(msgspec.json.encode(reply))


def _warm_up(run: Run) -> None:
    """Makes and closes the world once: the time of its imports must not count as the time of an evaluation.

    The next evaluations are expected to take as long as the first one. An exception is left to the first evaluation,
    which reports it.
    """
    spec = run.spec
    with contextlib.suppress(Exception):
        if is_foreign(spec.scenario) and not is_batched(spec.scenario):
            world = make_eval_copy(run, "", SCHEDULED_SEED)
        else:
            world = make_eval_world(run, 1, SCHEDULED_SEED, _task(run), "")
        world.close()


def _task(run: Run) -> EvalTask:
    """Returns the task of an evaluation: in the batched world where it equals the named one."""
    name = run.spec.scenario
    return EvalTask(fast=not is_foreign(name) and not name.startswith(REAL_MPE2))


def evaluate_weights(run: Run, request: EvaluationRequest, flat: Floats) -> ScheduledEvaluation:
    """Evaluates flat weights; raises ShoalError, or any exception of an environment that is stepped in one call.

    Plays in the batched world where it equals the named one. Episode e starts from `reset(seed=SCHEDULED_SEED + e)`.
    """
    started_at = time.monotonic()
    name = run.spec.scenario
    steps_together = not is_foreign(name) or is_batched(name)
    options = PlayOptions(
        within_s=request.within_s,
        copies=1 if not steps_together else _COPIES if request.episodes else _UNCOUNTED_COPIES,
        min_episodes=1,
        max_episodes=request.max_episodes,
    )
    team = trained_team("the team in training", PolicyFile(run, 0, request.updates, flat))
    found = evaluate_team(run, team, request.episodes, SCHEDULED_SEED, _task(run), options=options)
    if not abs(found.return_mean) <= MAX_RETURN:
        raise ShoalError(f"the mean return is {found.return_mean}; the environment gave a reward that is not a number")
    return ScheduledEvaluation(
        time=round(time.time(), 3),
        env_steps=request.env_steps,
        updates=request.updates,
        trained_s=request.trained_s,
        episodes=found.episodes,
        seed=SCHEDULED_SEED,
        return_mean=found.return_mean,
        return_ci95=found.return_ci95,
        return_per_agent=found.return_per_agent,
        # A metric that no episode had is NaN, which JSON lacks.
        metrics={metric: one.mean for metric, one in found.metrics.items() if math.isfinite(one.mean)},
        length_mean=found.length_mean,
        seconds=round(time.monotonic() - started_at, 3),
    )


if __name__ == "__main__":
    main()
