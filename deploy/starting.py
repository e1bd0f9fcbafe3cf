"""Before and after the processes of `shoal train`: what does not fit is refused, and a run without updates is named."""

from __future__ import annotations

from common.policy_file import load_policy
from common.run import RunSpec
from common.run_directory import RunDirectory
from common.run_options import Check
from common.spec import AgentsSpec
from common.vitals import available_memory_bytes
from deploy.config import TrainConfig
from deploy.embedded_redis import SPARE
from learner_node.sizes import BASE_BYTES, refuse_beyond_memory, sizes_of
from learner_node.warm_up import ended_too_early
from replay_server.ring import USABLE_SHARE


def refuse_what_does_not_fit(config: TrainConfig) -> Check:
    """Returns what refuses a run whose replay, learner and actors do not fit into this machine's free memory."""

    def check(spec: RunSpec, joint: AgentsSpec) -> None:
        sizes = sizes_of(spec, joint)
        copies = 1.0 + SPARE if config.redis == "embedded" and not config.lockstep else 1.0
        refuse_beyond_memory(
            sizes,
            joint,
            int(available_memory_bytes() * USABLE_SHARE),
            learner_bytes=BASE_BYTES if config.gpu else sizes.learner_bytes,
            workers=0 if config.lockstep else config.actors,
            copies=copies,
        )

    return check


def untrained_in_words(directory: RunDirectory) -> str:
    """Returns what to say of a run whose budget was used before its first update; empty when it was trained."""
    if not directory.policy_file.exists() or load_policy(directory.policy_file).updates:
        return ""
    return ended_too_early(directory.run.spec)
