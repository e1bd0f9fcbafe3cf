"""The Job of a sweep: its command, and what happens to its pods."""

from __future__ import annotations

import os
import re
import subprocess
import textwrap
from pathlib import Path

import pytest

from common.process import command
from shoal.commands.sweep.cli import SweepConfig, sweep
from shoal.commands.sweep.runner import parallel_runs
from tests.deploy.manifests import KUBERNETES, ROOT, Workload, kubectl, objects, of_kind, workloads

yaml = pytest.importorskip("yaml")


@pytest.fixture
def job() -> Workload:
    (found,) = workloads(objects("sweep"))
    return found


def test_the_command_is_a_sweep_on_the_shared_volume(job: Workload) -> None:
    (container,) = job.containers
    assert container["command"] == ["tini", "--", "shoal", "sweep"]
    context = sweep.make_context("sweep", list(container["args"]))
    config = command.build(SweepConfig, {name: context.params[name] for name in SweepConfig.__struct_fields__})
    assert context.params["scenario"] == "simple_spread"
    options = context.params["train_options"]
    assert options[0] == "--lockstep", "the pods have no network"
    (mount,) = [m for m in container["volumeMounts"] if m["name"] == "sweep"]
    assert Path(config.run).parent == Path(mount["mountPath"])
    assert config.part == "", "pods divide the runs by claims, not by index"
    cores = float(container["resources"]["limits"]["cpu"])
    assert cores == float(container["resources"]["requests"]["cpu"])
    assert (config.jobs, parallel_runs(int(cores), options)) == (0, cores)


def test_every_pod_can_write_the_volume_and_talks_to_nobody(job: Workload) -> None:
    (claim,) = of_kind(objects("sweep"), "PersistentVolumeClaim").values()
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    (policy,) = of_kind(objects("sweep"), "NetworkPolicy").values()
    assert policy["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


def test_a_drained_pod_starts_again_and_an_invalid_command_does_not(job: Workload) -> None:
    assert (job.kind, job.spec["completionMode"]) == ("Job", "Indexed")
    assert job.spec["completions"] == job.spec["parallelism"] > 1
    assert job.spec["backoffLimitPerIndex"] > 0
    drained, invalid = job.spec["podFailurePolicy"]["rules"]
    assert drained["action"] == "Ignore"
    assert drained["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
    assert (invalid["action"], invalid["onExitCodes"]["values"]) == ("FailJob", [2])
    assert job.pod["restartPolicy"] == "Never", "a failure policy needs it"


def test_a_sweep_of_ones_own_is_made_as_the_guide_says(tmp_path: Path) -> None:
    guide = (ROOT / "docs" / "deployment" / "kubernetes.md").read_text()
    (text,) = re.findall(r"^    # deploy/kubernetes/spread-sweep/\S+\n((?:    .*\n)+)", guide, flags=re.MULTILINE)
    shipped = os.path.relpath(KUBERNETES / "sweep", tmp_path.resolve())
    (tmp_path / "kustomization.yaml").write_text(textwrap.dedent(text).replace("../sweep", shipped))
    done = subprocess.run([kubectl(), "kustomize", tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (made,) = workloads(tuple(yaml.safe_load_all(done.stdout)))
    (container,) = made.containers
    assert container["image"].startswith("REGISTRY/shoal-learner:")
    assert container["args"][0] == "simple_tag"
    assert (made.spec["completions"], made.spec["parallelism"]) == (8, 8)
