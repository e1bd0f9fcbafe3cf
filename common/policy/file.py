"""`policy.safetensors`: every player's policy by name, with the run in its metadata. What an actor or evaluator needs.

Tensors `{player}/{layer}/weight` [inputs, outputs] and `{player}/{layer}/bias` [outputs], float32; a player is an
agent, or a side that learns as one (`{side}-team`), as in `Run.players`. The metadata holds
`run` (a Run as JSON), `version` (of the weights) and `updates`. Read and written with numpy; no pickle.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from common.errors import ConfigError
from common.files import write_atomically, writing
from common.policy.heads import Floats
from common.policy.network import layer_shapes, unflatten
from common.run.run import Run


class PolicyFile(msgspec.Struct, frozen=True):
    """A team's policies as stored: whose, how far trained, and the flat weights of common/policy/network.py."""

    run: Run
    version: int
    updates: int
    flat: Floats

    @property
    def digest(self) -> str:
        """Tells weights from others: blake2b of `flat`, 128 bits in hex."""
        return hashlib.blake2b(np.ascontiguousarray(self.flat, "<f4").tobytes(), digest_size=16).hexdigest()


def save_policy(path: Path, policy: PolicyFile) -> None:
    """Writes a team's policies; the file is replaced as a whole."""
    layers = unflatten(policy.flat, policy.run.players, policy.run.spec.network)
    tensors = {
        f"{player.name}/{i}/{name}": np.ascontiguousarray(tensor)
        for player, own in zip(policy.run.players.agents, layers, strict=True)
        for i, layer in enumerate(own)
        for name, tensor in (("weight", layer.weight), ("bias", layer.bias))
    }
    metadata = {
        "run": msgspec.json.encode(policy.run).decode(),
        "version": str(policy.version),
        "updates": str(policy.updates),
    }
    with writing(path):
        write_atomically(path, save(tensors, metadata))


def load_policy(path: Path | str) -> PolicyFile:
    """Reads a team's policies; ConfigError when the file is missing, damaged, or another program's."""
    path = Path(path)
    if path.is_dir():
        raise ConfigError(f"{path} is a directory; name the file in it: {path / 'policy.safetensors'}")
    if not path.exists():
        raise ConfigError(f"{path} does not exist; the learner writes it with its first checkpoint")
    try:
        with safe_open(path, "numpy") as file:
            metadata = file.metadata() or {}
            run = msgspec.json.decode(metadata["run"], type=Run)
            shapes = {
                f"{player.name}/{i}/{name}": shape
                for player in run.players.agents
                for i, (inputs, outputs) in enumerate(layer_shapes(player, run.spec.network))
                for name, shape in (("weight", (inputs, outputs)), ("bias", (outputs,)))
            }
            flat = np.concatenate([_tensor(file, name, shape) for name, shape in shapes.items()])
            version, updates = int(metadata["version"]), int(metadata["updates"])
    except KeyError as e:
        raise ConfigError(f"{path} holds no policies of Shoal: its metadata has no {e}") from e
    except (SafetensorError, ValueError, TypeError, OSError) as e:
        raise ConfigError(f"{path} holds no policies of this version of Shoal: {e}") from e
    return PolicyFile(run, version, updates, flat)


def _tensor(file: Any, name: str, shape: tuple[int, ...]) -> Floats:
    """Returns one tensor, flat; ValueError when it does not fit the run or cannot be acted with."""
    tensor: Floats = file.get_tensor(name)
    if tensor.shape != shape or tensor.dtype != np.float32 or not np.isfinite(tensor).all():
        raise ValueError(f"{name} is {tensor.dtype} {tensor.shape}, not finite float32 {shape}")
    return tensor.ravel()
