"""The manifests' command lines, files and environments, taken in by the real commands."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import click
import msgspec
import pytest

from actor_node.cli import actor
from actor_node.config import ActorConfig
from common.process import command
from common.run.open_run import RunOptions
from common.run.run import make_run_spec
from common.wire.sockets import require_local
from learner_node.cli import learner
from learner_node.config import LearnerConfig
from replay_server.cli import replay
from replay_server.config import ReplayConfig
from replay_server.server import DRAIN_TIMEOUT_S
from tests.deploy.manifests import OVERLAYS, ROOT, Object, Workload, objects, of_kind, workloads

COMMANDS: dict[str, tuple[click.Command, type[msgspec.Struct]]] = {
    "actor": (actor, ActorConfig),
    "learner": (learner, LearnerConfig),
    "replay": (replay, ReplayConfig),
}
MARGIN_S = 5.0
"""What an end takes beside the drain, at least."""
SECRETS = {"redis": {"password": "secret"}}
"""What the secrets hold that users make, as far as commands read it."""


class Started(NamedTuple):
    """A role as its pod starts it."""

    pod: Workload
    config: Any
    context: click.Context


class Image(NamedTuple):
    """What the Dockerfile says of a role's image."""

    entry_point: list[str]
    user: str
    environment: dict[str, str]


def image(role: str) -> Image:
    stages = re.split(r"^FROM ", (ROOT / "deploy/images/Dockerfile").read_text(), flags=re.MULTILINE)
    (stage,) = [stage for stage in stages if stage.splitlines()[0].endswith(f" AS {role}")]
    lines = dict(
        line.split(maxsplit=1) for line in stage.splitlines() if line.startswith(("ENV ", "USER ", "ENTRYPOINT "))
    )
    environment = dict(pair.split("=", 1) for pair in lines["ENV"].split())
    return Image(json.loads(lines["ENTRYPOINT"]), lines["USER"], environment)


@pytest.mark.parametrize("overlay", OVERLAYS)
@pytest.mark.parametrize("role", COMMANDS)
def test_the_image_is_the_roles_and_runs_as_its_user(overlay: str, role: str) -> None:
    (pod,) = [pod for pod in workloads(objects(overlay)) if pod.name == role]
    context = pod.pod["securityContext"]
    assert image(role).entry_point[-1] == role
    assert image(role).user == f"{context['runAsUser']}:{context['runAsGroup']}"
    assert pod.containers[0]["image"].split(":")[0].removesuffix("-cuda") == f"shoal-{role}"


@pytest.fixture(params=[(overlay, role) for overlay in OVERLAYS for role in COMMANDS], ids="-".join)
def started(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Started:
    overlay, role = request.param
    found = objects(overlay)
    (pod,) = [pod for pod in workloads(found) if pod.name == role]
    (container,) = pod.containers
    assert "command" not in container, "the image's entry point is the command"
    files = _write_mounted_files(container, pod, found, tmp_path)
    variables = {variable["name"]: _value(variable, pod) for variable in container.get("env", ())}
    for name, value in (image(role).environment | variables).items():
        monkeypatch.setenv(name, files(value))
    arguments = [files(argument) for argument in container["args"]]
    definition, config = COMMANDS[role]
    context = definition.make_context(role, arguments)
    return Started(pod, command.build(config, context.params), context)


def _write_mounted_files(
    container: Object, pod: Workload, found: tuple[Object, ...], directory: Path
) -> Callable[[str], str]:
    """Writes what ConfigMaps and Secrets mount; returns what finds the written file for a path in the container."""
    written: dict[str, str] = {}
    contents = {name: config["data"] for name, config in of_kind(found, "ConfigMap").items()} | SECRETS
    volumes = {volume["name"]: volume for volume in pod.pod["volumes"]}
    for mount in container["volumeMounts"]:
        volume = volumes[mount["name"]]
        name = volume.get("configMap", {}).get("name") or volume.get("secret", {}).get("secretName", "")
        for file, text in contents.get(name, {}).items():
            (directory / file).write_text(text)
            written[f"{mount['mountPath']}/{file}"] = str(directory / file)
    return lambda path: written.get(path, path)


def _value(variable: Object, pod: Workload) -> str:
    match variable:
        case {"value": str(text)}:
            return text
        case {"valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}:
            return f"{pod.name}-0"
    raise AssertionError(f"{variable} is not understood")


def test_the_command_takes_its_options(started: Started) -> None:
    known = {variable for option in started.context.command.params for variable in [option.envvar] if variable}
    names = {variable["name"] for variable in started.pod.containers[0].get("env", ())}
    assert {name for name in names if name.startswith("SHOAL_")} <= known, (
        "a variable that no option reads would be ignored in silence"
    )


def test_the_http_port_is_the_one_that_is_probed_and_scraped(started: Started) -> None:
    assert started.config.metrics_port == started.pod.port("metrics")
    assert started.config.metrics_host == "0.0.0.0"


def test_it_binds_where_its_service_leads(started: Started) -> None:
    if isinstance(started.config, ActorConfig):
        return
    keys = started.config.keys
    assert started.config.insecure == (not keys), "where there are keys, it does not listen without them"
    require_local(started.config.bind, "--bind", insecure=started.config.insecure, keys=bool(keys))
    port = "messages" if isinstance(started.config, ReplayConfig) else "weights"
    assert started.config.bind == f"tcp://0.0.0.0:{started.pod.port(port)}"


def test_it_finds_its_keys_where_they_are_mounted(started: Started) -> None:
    mounts = [m for m in started.pod.containers[0]["volumeMounts"] if m["name"] == "keys"]
    assert [started.config.keys] == ([mount["mountPath"] for mount in mounts] or [""])
    for volume in started.pod.pod["volumes"]:
        if volume["name"] == "keys":
            # Another user's processes in the pod could read what all may; and what is left out must not be silent.
            assert volume["secret"] == {"secretName": f"keys-{started.pod.name}", "defaultMode": 0o440}


def test_there_is_time_to_end_cleanly(started: Started) -> None:
    needs_s = {
        ActorConfig: lambda config: config.drain + 2.0,
        ReplayConfig: lambda _: DRAIN_TIMEOUT_S,
        LearnerConfig: lambda _: 60.0,
    }
    grace_s = started.pod.pod["terminationGracePeriodSeconds"]
    assert grace_s >= needs_s[type(started.config)](started.config) + MARGIN_S


def test_each_role_has_what_it_needs(started: Started) -> None:
    config, pod = started.config, started.pod
    if isinstance(config, ReplayConfig):
        config.check()
        assert config.name == "replay-0", "a shard's keys in Redis bear its own name"
        assert config.level == "redis"
        assert config.redis_password == ("secret" if "@" in config.redis else "")
        return
    if isinstance(config, ActorConfig):
        assert float(pod.containers[0]["resources"]["limits"]["cpu"]) >= config.n
        return
    options = command.build(RunOptions, started.context.params)
    spec = make_run_spec({"scenario": config.scenario}, command.run_settings(started.context))
    assert spec.scenario
    assert options.steps or options.time
    assert config.resume, "begins, or goes on after a restart"
    assert config.stay, "a Deployment starts again what ends"
    (mount,) = [m for m in pod.containers[0]["volumeMounts"] if m["name"] == "runs"]
    assert Path(config.run).parent == Path(mount["mountPath"])
    assert config.gpu == ("nvidia.com/gpu" in pod.containers[0]["resources"]["limits"])
