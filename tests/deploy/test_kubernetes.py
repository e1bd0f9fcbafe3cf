"""The manifests: rendered as shipped, known to Kubernetes field by field, and whole in themselves."""

from __future__ import annotations

import os
import re
import subprocess
import textwrap
from pathlib import Path

import pytest
import yaml

from tests.deploy import prometheus_operator
from tests.deploy.manifests import (
    ADDONS,
    KUBERNETES,
    OVERLAYS,
    PART,
    ROOT,
    SOURCES,
    Object,
    Workload,
    kubectl,
    objects,
    of_kind,
    references,
    rendered,
    selects,
    workloads,
)

kubernetes_validate = pytest.importorskip("kubernetes_validate", reason="pip install kubernetes-validate")
jsonschema = pytest.importorskip("jsonschema")

VERSIONS = ("1.29", "1.33", "1.37")
"""Of Kubernetes: the oldest supported one, one between, the newest known."""
EVERYTHING = [(overlay, *ADDONS) for overlay in OVERLAYS]
WITH_PODS = (*OVERLAYS, "sweep")


@pytest.mark.parametrize("name", SOURCES)
def test_the_rendered_file_is_what_kustomize_makes(name: str) -> None:
    shipped = (KUBERNETES / "rendered" / f"{name}.yaml").read_text()
    assert shipped == rendered(name), "run deploy/kubernetes/render.sh"


@pytest.mark.slow
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", SOURCES)
def test_kubernetes_knows_every_field(name: str, version: str) -> None:
    for document in objects(name):
        if document["apiVersion"].startswith("monitoring.coreos.com/"):
            jsonschema.validate(document, prometheus_operator.SCHEMAS[document["kind"]])
        else:
            kubernetes_validate.validate(document, version, strict=True)


def test_a_field_nobody_knows_is_found() -> None:
    deployment = of_kind(objects("cpu"), "Deployment")["actor"]
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(_misspelt(deployment), VERSIONS[-1], strict=True)
    for kind, schema in prometheus_operator.SCHEMAS.items():
        (document,) = of_kind(objects("monitoring"), kind).values()
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(_misspelt(document), schema)


def _misspelt(document: Object) -> Object:
    return {**document, "spec": {**document["spec"], "selektor": {}}}


@pytest.mark.parametrize("names", EVERYTHING, ids=OVERLAYS)
def test_all_are_in_one_namespace_and_have_a_name_of_their_own(names: tuple[str, ...]) -> None:
    found = objects(*names)
    (namespace,) = of_kind(found, "Namespace")
    assert {one["metadata"].get("namespace") for one in found if one["kind"] != "Namespace"} == {namespace}
    identities = [(one["kind"], one["metadata"]["name"]) for one in found]
    assert len(set(identities)) == len(identities)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_selectors_take_the_pods_they_mean_and_no_others(overlay: str) -> None:
    found = objects(overlay)
    pods = workloads(found)
    for pod in pods:
        assert [other.name for other in pods if selects(pod.spec["selector"], other.labels)] == [pod.name]
    for name, service in of_kind(found, "Service").items():
        selector = {"matchLabels": service["spec"]["selector"]}
        assert [pod.name for pod in pods if selects(selector, pod.labels)] == [name]
    for name, budget in of_kind(found, "PodDisruptionBudget").items():
        assert [pod.name for pod in pods if selects(budget["spec"]["selector"], pod.labels)] == [name]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_services_lead_to_ports_that_containers_have(overlay: str) -> None:
    pods = {pod.name: pod for pod in workloads(objects(overlay))}
    services = of_kind(objects(overlay), "Service")
    for name, service in services.items():
        for port in service["spec"]["ports"]:
            assert pods[name].port(port["targetPort"]) == port["port"]
    for pod in pods.values():
        if pod.kind == "StatefulSet":
            assert services[pod.spec["serviceName"]]["spec"]["clusterIP"] == "None"


@pytest.mark.parametrize("overlay", WITH_PODS)
def test_what_pods_refer_to_exists(overlay: str) -> None:
    found = objects(overlay)
    there = {(one["kind"], one["metadata"]["name"]) for one in found}
    missing = {
        (kind, name)
        for pod in workloads(found)
        for kind, name, optional in references(pod.pod)
        if (kind, name) not in there and not optional
    }
    to_be_made = {"redis", "keys-actor", "keys-learner", "keys-replay"} if overlay == "secure" else set()
    assert missing == {("Secret", name) for name in to_be_made}


def test_the_guide_tells_how_to_make_the_secrets() -> None:
    guide = (ROOT / "docs" / "deployment" / "kubernetes.md").read_text()
    secrets = {
        name for pod in workloads(objects("secure")) for kind, name, _ in references(pod.pod) if kind == "Secret"
    }
    assert secrets == {"redis", "keys-actor", "keys-learner", "keys-replay"}
    for secret in secrets:
        assert secret in guide
    assert re.search(r"create secret generic \"?keys-\S+ --from-file=keys/", guide)
    assert re.search(r"create secret generic redis .*users\.acl .*password", guide.replace("\\\n", " "))


def test_an_overlay_of_ones_own_is_made_as_the_guide_says(tmp_path: Path) -> None:
    guide = (ROOT / "docs" / "deployment" / "kubernetes.md").read_text()
    (text,) = re.findall(r"```yaml\n   # deploy/.*?\n(.*?)```", guide, flags=re.DOTALL)
    base = os.path.relpath(KUBERNETES / "base", tmp_path.resolve())
    (tmp_path / "kustomization.yaml").write_text(textwrap.dedent(text).replace("../../base", base))
    (tmp_path / "learner.toml").write_text('scenario = "simple_tag"\n')
    done = subprocess.run([kubectl(), "kustomize", tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = tuple(yaml.safe_load_all(done.stdout))
    assert set(of_kind(found, "Namespace")) == {"spread"}
    images = {container["image"] for pod in workloads(found) for container in pod.containers}
    assert {image.split(":")[0] for image in images} == {
        "valkey/valkey",
        "REGISTRY/shoal-replay",
        "REGISTRY/shoal-actor",
        "REGISTRY/shoal-learner",
    }
    (learner,) = [pod for pod in workloads(found) if pod.name == "learner"]
    (config,) = [name for kind, name, _ in references(learner.pod) if kind == "ConfigMap"]
    assert of_kind(found, "ConfigMap")[config]["data"] == {"learner.toml": 'scenario = "simple_tag"\n'}


@pytest.mark.parametrize("overlay", WITH_PODS)
def test_volumes_are_mounted_and_mounts_have_volumes(overlay: str) -> None:
    for pod in workloads(objects(overlay)):
        claims = [claim["metadata"]["name"] for claim in pod.spec.get("volumeClaimTemplates", ())]
        volumes = {volume["name"] for volume in pod.pod["volumes"]} | set(claims)
        mounts = {mount["name"] for container in pod.containers for mount in container["volumeMounts"]}
        assert mounts == volumes, pod.name


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_probes_ask_for_progress_where_it_is_told(overlay: str) -> None:
    for pod in workloads(objects(overlay)):
        (container,) = pod.containers
        probes = {kind: container[f"{kind}Probe"] for kind in ("startup", "readiness", "liveness")}
        if pod.name == "redis":
            assert all("valkey-cli ping" in " ".join(probe["exec"]["command"]) for probe in probes.values())
            continue
        metrics = pod.port("metrics")
        assert {kind: (p["httpGet"]["path"], pod.port(p["httpGet"]["port"])) for kind, p in probes.items()} == {
            "startup": ("/healthz", metrics),
            "readiness": ("/readyz", metrics),
            "liveness": ("/healthz", metrics),
        }


@pytest.mark.parametrize("overlay", WITH_PODS)
def test_pods_may_do_no_more_than_the_restricted_profile_allows(overlay: str) -> None:
    found = objects(overlay)
    (namespace,) = of_kind(found, "Namespace").values()
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    for pod in workloads(found):
        _assert_restricted(pod)


def _assert_restricted(pod: Workload) -> None:
    context = pod.pod["securityContext"]
    assert context["runAsNonRoot"] is True
    assert context["runAsUser"] > 0
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod.pod)
    assert pod.pod["automountServiceAccountToken"] is False
    kinds = {"configMap", "secret", "emptyDir", "persistentVolumeClaim"}
    assert all(set(volume) - {"name"} <= kinds for volume in pod.pod["volumes"])
    for container in pod.containers:
        own = container["securityContext"]
        assert own["allowPrivilegeEscalation"] is False
        assert own["readOnlyRootFilesystem"] is True
        assert own["capabilities"] == {"drop": ["ALL"]}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_secrets_can_be_read_by_the_user_that_runs(overlay: str) -> None:
    for pod in workloads(objects(overlay)):
        if any("secret" in volume for volume in pod.pod["volumes"]):
            assert pod.pod["securityContext"]["fsGroup"] == pod.pod["securityContext"]["runAsGroup"]


@pytest.mark.parametrize("overlay", WITH_PODS)
def test_every_container_has_limits(overlay: str) -> None:
    for pod in workloads(objects(overlay)):
        for container in pod.containers:
            assert {"cpu", "memory"} <= set(container["resources"]["limits"])
            assert {"cpu", "memory"} <= set(container["resources"]["requests"])


def test_the_operator_gets_the_rules_that_prometheus_gets() -> None:
    (rule,) = of_kind(objects("monitoring"), "PrometheusRule").values()
    files = [(ROOT / "deploy/prometheus" / f"{name}.yml").read_text() for name in ("rules", "alerts")]
    groups = [group for text in files for group in yaml.safe_load(text)["groups"]]
    assert rule["spec"]["groups"] == groups, "run deploy/kubernetes/render.sh"


@pytest.mark.parametrize("overlay", WITH_PODS)
def test_services_names_do_not_become_settings(overlay: str) -> None:
    """Kubernetes would give each container the variables of each Service: a Service `shoal-metrics` would be
    SHOAL_METRICS_PORT."""
    assert all(pod.pod["enableServiceLinks"] is False for pod in workloads(objects(overlay)))


def test_a_learner_is_never_there_twice() -> None:
    for overlay in OVERLAYS:
        (learner,) = [pod for pod in workloads(objects(overlay)) if pod.name == "learner"]
        assert learner.spec["strategy"] == {"type": "Recreate"}
        assert learner.spec["replicas"] == 1


def test_only_the_gpu_overlay_asks_for_a_gpu() -> None:
    asked: dict[str, list[Object]] = {}
    for overlay in OVERLAYS:
        containers = [c for pod in workloads(objects(overlay)) for c in pod.containers]
        asked[overlay] = [c for c in containers if "nvidia.com/gpu" in c["resources"]["limits"]]
    assert {overlay: [c["name"] for c in found] for overlay, found in asked.items()} == {
        "cpu": [],
        "gpu": ["learner"],
        "secure": [],
    }
    assert asked["gpu"][0]["image"].startswith("shoal-learner-cuda:")


def test_the_monitor_selects_every_role_by_a_port_it_has() -> None:
    (monitor,) = of_kind(objects("monitoring"), "PodMonitor").values()
    scraped = [pod for pod in workloads(objects("cpu")) if selects(monitor["spec"]["selector"], pod.labels)]
    assert {pod.name for pod in scraped} == {"actor", "learner", "replay"}
    assert monitor["spec"]["jobLabel"] == PART
    for endpoint in monitor["spec"]["podMetricsEndpoints"]:
        for pod in scraped:
            pod.port(endpoint["port"])
