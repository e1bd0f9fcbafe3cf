"""The network policies, computed: each flow that the configuration needs is let through, and nothing else is."""

from __future__ import annotations

import itertools
import tomllib
from dataclasses import dataclass
from urllib.parse import urlsplit

import pytest

from tests.deploy.manifests import ADDONS, OVERLAYS, PART, Object, objects, of_kind, selects, workloads

NAMESPACE = {"kubernetes.io/metadata.name": "shoal"}


@dataclass(frozen=True)
class End:
    """A pod somewhere in the cluster."""

    name: str
    namespace: tuple[tuple[str, str], ...]
    labels: tuple[tuple[str, str], ...]


def end(name: str, namespace: dict[str, str], labels: dict[str, str]) -> End:
    return End(name, tuple(namespace.items()), tuple(labels.items()))


NAMES = end("dns", {"kubernetes.io/metadata.name": "kube-system"}, {"k8s-app": "kube-dns"})
PROMETHEUS = end("prometheus", {"kubernetes.io/metadata.name": "monitoring"}, {"app.kubernetes.io/name": "prometheus"})
OUTSIDERS = (
    NAMES,
    PROMETHEUS,
    end("its neighbour", dict(PROMETHEUS.namespace), {"app.kubernetes.io/name": "grafana"}),
    end("a stranger", {"kubernetes.io/metadata.name": "default"}, {PART: "actor"}),
    end("the internet", {}, {}),
)
PORTS = {53, 22, 443, 5555, 5556, 6379, 9101, 9102, 9103}


class Cluster:
    """Our pods, those around them, and the policies between them."""

    def __init__(self, *names: str) -> None:
        found = objects(*names)
        self.policies = list(of_kind(found, "NetworkPolicy").values())
        self.pods = {pod.name: end(pod.name, NAMESPACE, pod.labels) for pod in workloads(found)}
        self.ports = {
            pod.name: {one["containerPort"] for c in pod.containers for one in c["ports"]} for pod in workloads(found)
        }
        self.files = {
            config["metadata"]["name"].partition("-")[0]: next(iter(config["data"].values()))
            for config in of_kind(found, "ConfigMap").values()
        }

    def flows(self) -> set[tuple[str, str, int]]:
        """Returns every flow that is let through between our pods, or between one of them and the others."""
        ends = [*self.pods.values(), *OUTSIDERS]
        tried = [(a, b) for a, b in itertools.permutations(ends, 2) if {a.name, b.name} & set(self.pods)]
        return {
            (source.name, target.name, port)
            for source, target in tried
            for port in PORTS
            if self._lets(source, target, port, "Egress") and self._lets(target, source, port, "Ingress")
        }

    def _lets(self, own: End, other: End, port: int, direction: str) -> bool:
        """Says whether the policies of one end let traffic of this direction pass; without any, all passes."""
        if own.namespace != tuple(NAMESPACE.items()):
            return True
        policies = [
            policy["spec"]
            for policy in self.policies
            if direction in policy["spec"]["policyTypes"] and selects(policy["spec"]["podSelector"], dict(own.labels))
        ]
        rules = [rule for spec in policies for rule in spec.get(direction.lower(), ())]
        return not policies or any(_takes(rule, other, port) for rule in rules)


def _takes(rule: Object, other: End, port: int) -> bool:
    peers = rule.get("from", rule.get("to"))
    ports = rule.get("ports")
    return (peers is None or any(_is_peer(peer, other) for peer in peers)) and (
        ports is None or any(one["port"] == port for one in ports)
    )


def _is_peer(peer: Object, other: End) -> bool:
    assert set(peer) <= {"podSelector", "namespaceSelector"}
    if "namespaceSelector" in peer:
        in_namespace = selects(peer["namespaceSelector"], dict(other.namespace))
    else:
        in_namespace = other.namespace == tuple(NAMESPACE.items())
    return in_namespace and selects(peer.get("podSelector", {}), dict(other.labels))


def needed(cluster: Cluster) -> set[tuple[str, str, int]]:
    """Returns the flows that follow from the addresses in the configuration files."""
    replay, learner, actor = (tomllib.loads(cluster.files[name]) for name in ("replay", "learner", "actor"))
    addresses = [
        ("replay", replay["redis"]),
        *(("learner", url) for url in learner["replay"]),
        *(("actor", url) for url in (*actor["replay"], actor["weights"])),
    ]
    flows = set()
    for source, url in addresses:
        target = urlsplit(url)
        assert target.hostname
        assert target.port
        # NAME of a Service, or POD-0.NAME of a headless one
        flows.add((source, target.hostname.rpartition(".")[2], target.port))
    return flows | {(source, "dns", 53) for source in ("actor", "learner", "replay")}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_what_is_needed_passes_and_nothing_else(overlay: str) -> None:
    cluster = Cluster(overlay)
    flows = needed(cluster)
    assert ("replay", "redis", 6379) in flows
    assert cluster.flows() == flows
    assert all(port in cluster.ports[target] for _, target, port in flows if target in cluster.pods)


def test_prometheus_reaches_the_metrics_and_nothing_else() -> None:
    plain, monitored = Cluster("cpu"), Cluster("cpu", *ADDONS)
    more = monitored.flows() - plain.flows()
    # One rule for all three: a port that a role does not have answers nobody.
    answered = {(source, target, port) for source, target, port in more if port in monitored.ports[target]}
    assert answered == {("prometheus", "actor", 9103), ("prometheus", "learner", 9102), ("prometheus", "replay", 9101)}
    assert {source for source, _, _ in more} == {"prometheus"}


@pytest.mark.parametrize("policy", ["default-deny", "dns", "actor", "learner", "replay", "redis"])
def test_no_policy_can_go(policy: str) -> None:
    """The computation sees each of them."""
    cluster = Cluster("cpu")
    whole = cluster.flows()
    cluster.policies = [one for one in cluster.policies if one["metadata"]["name"] != policy]
    assert cluster.flows() != whole


def test_shards_have_the_names_that_are_configured() -> None:
    cluster = Cluster("cpu")
    replicas = of_kind(objects("cpu"), "StatefulSet")["replay"]["spec"]["replicas"]
    names = [f"tcp://replay-{shard}.replay:5555" for shard in range(replicas)]
    for role in ("learner", "actor"):
        assert tomllib.loads(cluster.files[role])["replay"] == names
