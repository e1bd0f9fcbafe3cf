"""A run's film embedded in the page, with a still picture of a GIF for when it is paused."""

from __future__ import annotations

import base64
import io
from typing import NamedTuple

from shoal.commands.report.run_record import RunRecord
from shoal.number_format import file_size

MAX_BYTES = 8_000_000
"""Largest film that is embedded, so that the page opens on a phone; a larger one is only named."""


class EmbeddedFilm(NamedTuple):
    """One film of the page."""

    run: str
    name: str
    kind: str
    """image/gif or video/mp4; empty if the film is too large to embed."""
    source: str
    """The film as a data URL."""
    still: str
    """The first picture as a data URL; empty if there is none."""
    size: str
    width: int
    height: int


def embed_film(record: RunRecord) -> EmbeddedFilm | None:
    """Returns the film of a run for the page; None if there is none or it cannot be read."""
    if record.film is None:
        return None
    try:
        content = record.film.read_bytes()
    except OSError:
        return None
    size = file_size(len(content))
    if len(content) > MAX_BYTES:
        return EmbeddedFilm(record.name, str(record.film), "", "", "", size, 0, 0)
    if record.film.suffix == ".mp4":
        return EmbeddedFilm(record.name, record.film.name, "video/mp4", _data_url("video/mp4", content), "", size, 0, 0)
    still, width, height = _still(content)
    return EmbeddedFilm(
        record.name, record.film.name, "image/gif", _data_url("image/gif", content), still, size, width, height
    )


def _still(content: bytes) -> tuple[str, int, int]:
    """Returns the first picture of a GIF as a PNG and its size; empty and 0 if Pillow is missing or cannot read it."""
    try:
        from PIL import Image, UnidentifiedImageError  # noqa: PLC0415  (an optional dependency: a report does not need a film)
    except ImportError:
        return "", 0, 0
    try:
        with Image.open(io.BytesIO(content)) as film:
            picture = io.BytesIO()
            film.save(picture, "PNG", optimize=True)
            return _data_url("image/png", picture.getvalue()), film.width, film.height
    except (UnidentifiedImageError, OSError):
        return "", 0, 0


def _data_url(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
