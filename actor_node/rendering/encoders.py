"""Frames into a file that plays anywhere: GIF by Pillow, MP4 (H.264) by PyAV."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from common.errors import ConfigError
from common.files import write_atomically

_EXACT_COLOURS, _MEAN_COLOURS = 32, 96
"""Of a GIF's 256: renderers paint flat areas, which are to stay as they are; their smooth edges share the rest."""
_APART = 8
_PALETTE_SAMPLES = 8


class FilmFile(Protocol):
    """Takes the frames of one episode after the other, then writes them."""

    frames: int
    """Pictures taken so far."""
    size: tuple[int, int]

    def __init__(self, fps: int) -> None: ...

    def add(self, frames: Sequence[Image.Image], *, hold: int) -> None:
        """Takes one episode's frames; the last is shown for `hold` frames' time more."""

    def write(self, path: Path) -> int:
        """Writes the file as a whole and returns its size in bytes."""


def film_kind(path: Path) -> type[FilmFile]:
    """Returns what writes the kind of file that the name's ending asks for. ConfigError where it cannot be made."""
    if not path.parent.is_dir():
        raise ConfigError(f"-o {path}: the directory {path.parent} does not exist; make it, or name another")
    kind = path.suffix.lower()
    if kind == ".gif":
        return Gif
    if kind == ".mp4":
        if not find_spec("av"):
            raise ConfigError(f"-o {path}: MP4 needs PyAV (pip install 'shoal[film]'); a name in .gif does not")
        return Mp4
    raise ConfigError(f"-o {path}: films are GIF or MP4; give a name that ends in .gif or .mp4")


class Gif:
    """An animation that loops for ever; frames of an episode share a palette of its own colours."""

    def __init__(self, fps: int) -> None:
        self.frames, self.size = 0, (0, 0)
        self._frame_ms = round(1000 / fps)
        self._images: list[Image.Image] = []
        self._durations_ms: list[int] = []

    def add(self, frames: Sequence[Image.Image], *, hold: int) -> None:
        """Takes one episode's frames."""
        self.frames += len(frames)
        self.size = frames[0].size
        palette = _palette(frames)
        # Without dithering an area that does not change is the same in every frame and costs nothing.
        self._images += [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
        self._durations_ms += [self._frame_ms] * (len(frames) - 1) + [self._frame_ms * (1 + hold)]

    def write(self, path: Path) -> int:
        """Writes the file as a whole and returns its size in bytes."""
        content = io.BytesIO()
        first, *rest = self._images
        first.save(content, "GIF", save_all=True, append_images=rest, duration=self._durations_ms, loop=0)
        return _replace(path, content.getvalue())


class Mp4:
    """An H.264 video in the one pixel format that every browser and player decodes."""

    def __init__(self, fps: int) -> None:
        import av  # noqa: PLC0415  (a GIF needs no video encoder)

        self.frames, self.size = 0, (0, 0)
        # FFmpeg opens a file a second time to put its index first, for players that begin before they have it all.
        self._scratch = tempfile.TemporaryDirectory(prefix="shoal-film-")
        self._file = Path(self._scratch.name) / "film.mp4"
        self._container = av.open(self._file, "w", options={"movflags": "+faststart"})
        self._stream = self._container.add_stream("libx264", rate=fps, options={"crf": "18"})
        self._stream.pix_fmt = "yuv420p"
        self._from_array = av.VideoFrame.from_ndarray

    def add(self, frames: Sequence[Image.Image], *, hold: int) -> None:
        """Takes one episode's frames."""
        if not self.frames:
            self.size = self._stream.width, self._stream.height = frames[0].size
        self.frames += len(frames)
        for image in [*frames, *[frames[-1]] * hold]:
            self._container.mux(self._stream.encode(self._from_array(np.asarray(image), format="rgb24")))

    def write(self, path: Path) -> int:
        """Writes the file as a whole and returns its size in bytes."""
        self._container.mux(self._stream.encode())
        self._container.close()
        content = self._file.read_bytes()
        self._scratch.cleanup()
        return _replace(path, content)


def _palette(frames: Sequence[Image.Image]) -> Image.Image:
    """Returns a palette for some frames, evenly spaced over the episode: their commonest colours, and means."""
    chosen = [frames[i] for i in np.linspace(0, len(frames) - 1, min(_PALETTE_SAMPLES, len(frames))).astype(int)]
    width, height = frames[0].size
    sheet = Image.new("RGB", (width, height * len(chosen)))
    for i, frame in enumerate(chosen):
        sheet.paste(frame, (0, i * height))
    counted = sheet.getcolors(sheet.width * sheet.height) or []
    exact = [colour for _, colour in sorted(counted, reverse=True)[:_EXACT_COLOURS]]
    means = sheet.quantize(_MEAN_COLOURS, method=Image.Quantize.MEDIANCUT).getpalette() or []
    kept: list[int] = []
    for colour in np.array([*exact, *zip(*[iter(means)] * 3, strict=True)]):
        # Pillow compares colours rounded down to a multiple of four: a near one would be taken for a commoner one.
        if not kept or np.abs(np.array(kept).reshape(-1, 3) - colour).max(axis=1).min() >= _APART:
            kept += colour.tolist()
    palette = Image.new("P", (1, 1))
    palette.putpalette(kept)
    return palette


def _replace(path: Path, content: bytes) -> int:
    try:
        write_atomically(path, content)
    except OSError as e:
        raise ConfigError(f"-o {path} cannot be written: {e.strerror}") from e
    return len(content)
