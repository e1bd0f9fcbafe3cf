"""What the Prometheus operator (0.91) takes, as JSON schemas: the part that we use, and nothing else.

Typed by hand from its definitions: the packages that hold them take fields that nobody knows.
"""

from __future__ import annotations

from typing import Any

_DURATION = {"type": "string", "pattern": "^[0-9]+(ms|s|m|h)$"}
_SELECTOR = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "matchLabels": {"type": "object", "additionalProperties": {"type": "string"}},
        "matchExpressions": {"type": "array", "items": {"type": "object", "required": ["key", "operator"]}},
    },
}
_RELABELING = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "action": {"type": "string"},
        "modulus": {"type": "integer"},
        "regex": {"type": "string"},
        "replacement": {"type": "string"},
        "separator": {"type": "string"},
        "sourceLabels": {"type": "array", "items": {"type": "string"}},
        "targetLabel": {"type": "string"},
    },
}
_ENDPOINT = {
    "type": "object",
    "additionalProperties": False,
    "required": ["port"],
    "properties": {
        "honorLabels": {"type": "boolean"},
        "interval": _DURATION,
        "metricRelabelings": {"type": "array", "items": _RELABELING},
        "path": {"type": "string"},
        "port": {"type": "string"},
        "relabelings": {"type": "array", "items": _RELABELING},
        "scheme": {"type": "string"},
        "scrapeTimeout": _DURATION,
    },
}
_POD_MONITOR = {
    "type": "object",
    "additionalProperties": False,
    "required": ["podMetricsEndpoints", "selector"],
    "properties": {
        "jobLabel": {"type": "string"},
        "namespaceSelector": {"type": "object"},
        "podMetricsEndpoints": {"type": "array", "minItems": 1, "items": _ENDPOINT},
        "podTargetLabels": {"type": "array", "items": {"type": "string"}},
        "sampleLimit": {"type": "integer"},
        "selector": _SELECTOR,
    },
}
_TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}
_RULE = {
    "type": "object",
    "additionalProperties": False,
    "required": ["expr"],
    "oneOf": [{"required": ["alert"]}, {"required": ["record"]}],
    "properties": {
        "alert": {"type": "string"},
        "annotations": _TEXTS,
        "expr": {"type": "string"},
        "for": _DURATION,
        "keep_firing_for": _DURATION,
        "labels": _TEXTS,
        "record": {"type": "string"},
    },
}
_GROUP = {
    "type": "object",
    "additionalProperties": False,
    "required": ["name", "rules"],
    "properties": {
        "interval": _DURATION,
        "labels": _TEXTS,
        "limit": {"type": "integer"},
        "name": {"type": "string", "minLength": 1},
        "rules": {"type": "array", "items": _RULE},
    },
}
_PROMETHEUS_RULE = {
    "type": "object",
    "additionalProperties": False,
    "properties": {"groups": {"type": "array", "items": _GROUP}},
}


def _object(kind: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "additionalProperties": False,
        "required": ["apiVersion", "kind", "metadata", "spec"],
        "properties": {
            "apiVersion": {"const": "monitoring.coreos.com/v1"},
            "kind": {"const": kind},
            "metadata": {"type": "object", "required": ["name"]},
            "spec": spec,
        },
    }


SCHEMAS = {
    "PodMonitor": _object("PodMonitor", _POD_MONITOR),
    "PrometheusRule": _object("PrometheusRule", _PROMETHEUS_RULE),
}
