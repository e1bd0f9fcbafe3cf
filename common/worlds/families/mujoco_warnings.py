"""Sends MuJoCo's warnings to the log, each text once, instead of to the screen and to MUJOCO_LOG.TXT for every copy."""

from __future__ import annotations

import logging
from functools import cache
from importlib.util import find_spec

_log = logging.getLogger(__name__)
_MOST_TEXTS = 10
_seen: set[str] = set()


@cache
def send_to_log() -> None:
    """Installs the callback in this process, unless the user's code has installed one or there is no MuJoCo."""
    if find_spec("mujoco") is None:
        return
    import mujoco  # noqa: PLC0415  (for worlds that use it)

    if mujoco.get_mju_user_warning() is None:
        mujoco.set_mju_user_warning(_log_text)


def _log_text(text: str) -> None:
    if text in _seen or len(_seen) >= _MOST_TEXTS:
        return
    _seen.add(text)
    # A deprecated attribute of a model concerns the authors of the model.
    _log.log(logging.INFO if "deprecated" in text else logging.WARNING, "MuJoCo: %s", text)
