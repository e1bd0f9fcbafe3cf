"""The policy file `policy.safetensors`: every player's policy, with the run in the metadata.

Tensors `{player}/{layer}/weight` [inputs, outputs] and `{player}/{layer}/bias` [outputs], and, in hidden layers with
layer normalisation, `{player}/{layer}/norm_gain` [outputs] and `{player}/{layer}/norm_bias` [outputs]. The gated
recurrent unit of a recurrent policy is the last layer but one, with weight [inputs, 3 units], bias [3 units],
`{player}/{layer}/recurrent_weight` [units, 3 units] and `{player}/{layer}/recurrent_bias` [3 units]. All are float32. A
player is an agent, or a side that learns as one (`{side}-team`), as in `Run.players`. The metadata contains `run` (a
Run as JSON, whose `spec.network` names the activation; files without it have ReLU networks), `version` (of the weights)
and `updates`. The file is read and written with numpy and without pickle.
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
from common.policy.network import named_parameters, parameter_shapes
from common.run.run import Run


class PolicyFile(msgspec.Struct, frozen=True):
    """The content of a policy file: the run, its progress, and flat weights in the layout of common/policy/network.py.

    Example:
        policies = load_policy(Path("runs/spread/policy.safetensors"))
        policy = Policy(policies.run.players, policies.run.spec.network, policies.flat)
        actions = policy.act(obs)
    """

    run: Run
    version: int
    updates: int
    flat: Floats

    @property
    def digest(self) -> str:
        """Digest of the weights, equal for equal bits: blake2b of `flat`, 128 bits in hex."""
        return hashlib.blake2b(np.ascontiguousarray(self.flat, "<f4").tobytes(), digest_size=16).hexdigest()


def save_policy(path: Path, policy: PolicyFile) -> None:
    """Writes a policy file atomically; LastingError if the disk is full."""
    parameters = named_parameters(policy.flat, policy.run.players, policy.run.spec.network)
    tensors = {
        f"{player.name}/{name}": np.ascontiguousarray(tensor)
        for player, by_name in zip(policy.run.players.agents, parameters, strict=True)
        for name, tensor in by_name.items()
    }
    metadata = {
        "run": msgspec.json.encode(policy.run).decode(),
        "version": str(policy.version),
        "updates": str(policy.updates),
    }
    with writing(path):
        write_atomically(path, save(tensors, metadata))


def load_policy(path: Path | str) -> PolicyFile:
    """Reads a policy file; ConfigError if the file is missing, damaged, or not one of Shoal's."""
    path = Path(path)
    if path.is_dir():
        raise ConfigError(f"{path} is a directory. Pass the file in it: {path / 'policy.safetensors'}.")
    if not path.exists():
        raise ConfigError(
            f"{path} does not exist. The learner writes it with its first checkpoint."
            " Wait for it, or pass another file."
        )
    try:
        with safe_open(path, "numpy") as file:
            metadata = file.metadata() or {}
            run = msgspec.json.decode(metadata["run"], type=Run)
            shapes = {
                f"{player.name}/{name}": shape
                for player in run.players.agents
                for name, shape in parameter_shapes(player, run.spec.network).items()
            }
            flat = np.concatenate([_tensor(file, name, shape) for name, shape in shapes.items()])
            version, updates = int(metadata["version"]), int(metadata["updates"])
    except KeyError as e:
        raise ConfigError(
            f"{path} is not a policy file of Shoal: its metadata has no {e}. Pass a file that a learner wrote."
        ) from e
    except (SafetensorError, ValueError, TypeError, OSError) as e:
        raise ConfigError(
            f"{path} is not a policy file of this version of Shoal: {e}. Pass a file that its learner wrote."
        ) from e
    return PolicyFile(run, version, updates, flat)


def _tensor(file: Any, name: str, shape: tuple[int, ...]) -> Floats:
    """Returns one tensor, flat; ValueError if it does not fit the run or is not finite."""
    tensor: Floats = file.get_tensor(name)
    if tensor.shape != shape or tensor.dtype != np.float32 or not np.isfinite(tensor).all():
        raise ValueError(f"{name} is {tensor.dtype} {tensor.shape}, not finite float32 {shape}")
    return tensor.ravel()
