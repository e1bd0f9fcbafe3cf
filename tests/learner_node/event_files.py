"""Reads TensorBoard's event files: records of a length, its checksum, a message of that length, and its checksum."""

from __future__ import annotations

import struct
from collections import defaultdict
from pathlib import Path

from tensorboardX.proto.event_pb2 import Event


def scalars(directory: Path) -> dict[tuple[str, str], list[tuple[int, float]]]:
    """Returns (directory of the curve within this one, tag) -> its steps and values."""
    found: dict[tuple[str, str], list[tuple[int, float]]] = defaultdict(list)
    for path in sorted(directory.rglob("events.out.tfevents.*")):
        for event in _events(path):
            for value in event.summary.value:
                curve = str(path.parent.relative_to(directory))
                found[curve, value.tag].append((event.step, value.simple_value))
    return dict(found)


def _events(path: Path) -> list[Event]:
    content, at, found = path.read_bytes(), 0, []
    while at < len(content):
        (length,) = struct.unpack_from("<Q", content, at)
        found.append(Event.FromString(content[at + 12 : at + 12 + length]))
        at += 12 + length + 4
    return found
