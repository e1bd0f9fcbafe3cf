"""Writes frames into a film: GIF by Pillow, MP4 (H.264) by PyAV."""

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
"""Parts of a GIF's 256 colours: flat areas of a picture keep their exact colours; smooth edges share the rest."""
_MIN_COLOUR_DISTANCE = 8
"""Least difference of two colours of a palette in one channel, of 255."""
_PALETTE_SAMPLES = 8
"""Number of an episode's frames from which its palette is made."""


class FilmFile(Protocol):
    """A film that is written episode by episode."""

    frames: int
    """Number of frames so far."""
    size: tuple[int, int]

    def __init__(self, fps: int) -> None: ...

    def add(self, frames: Sequence[Image.Image], *, pause: int) -> None:
        """Adds one episode's frames; the last is shown for `pause` more frames."""

    def write(self, path: Path) -> int:
        """Writes the file atomically and returns its size in bytes."""


def film_kind(path: Path) -> type[FilmFile]:
    """Returns the class that writes a file of the name's suffix; ConfigError if it cannot be written."""
    if not path.parent.is_dir():
        raise ConfigError(f"-o {path}: the directory {path.parent} does not exist. Create it, or name another one.")
    kind = path.suffix.lower()
    if kind == ".gif":
        return Gif
    if kind == ".mp4":
        if not find_spec("av"):
            raise ConfigError(
                f"-o {path}: MP4 needs PyAV. Run pip install 'shoal[film]', or pass a name that ends in .gif."
            )
        return Mp4
    raise ConfigError(f"-o {path}: films are GIF or MP4. Pass a name that ends in .gif or .mp4.")


class Gif:
    """An animation that loops forever; the frames of an episode share one palette."""

    def __init__(self, fps: int) -> None:
        self.frames, self.size = 0, (0, 0)
        self._frame_ms = round(1000 / fps)
        self._images: list[Image.Image] = []
        self._durations_ms: list[int] = []

    def add(self, frames: Sequence[Image.Image], *, pause: int) -> None:
        """Adds one episode's frames."""
        self.frames += len(frames)
        self.size = frames[0].size
        palette = _palette(frames)
        # Without dithering an area that does not change is the same in every frame and costs nothing.
        self._images += [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
        self._durations_ms += [self._frame_ms] * (len(frames) - 1) + [self._frame_ms * (1 + pause)]

    def write(self, path: Path) -> int:
        """Writes the file atomically and returns its size in bytes."""
        content = io.BytesIO()
        first, *rest = self._images
        first.save(content, "GIF", save_all=True, append_images=rest, duration=self._durations_ms, loop=0)
        return _write_film(path, content.getvalue())


class Mp4:
    """An H.264 video in the pixel format that every browser and player decodes."""

    def __init__(self, fps: int) -> None:
        import av  # noqa: PLC0415  (a GIF needs no video encoder)

        self.frames, self.size = 0, (0, 0)
        # FFmpeg opens the file a second time to put its index first, so that players can start early.
        self._scratch = tempfile.TemporaryDirectory(prefix="shoal-film-")
        self._file = Path(self._scratch.name) / "film.mp4"
        self._container = av.open(self._file, "w", options={"movflags": "+faststart"})
        self._stream = self._container.add_stream("libx264", rate=fps, options={"crf": "18"})
        self._stream.pix_fmt = "yuv420p"
        self._from_array = av.VideoFrame.from_ndarray

    def add(self, frames: Sequence[Image.Image], *, pause: int) -> None:
        """Adds one episode's frames."""
        if not self.frames:
            self.size = self._stream.width, self._stream.height = frames[0].size
        self.frames += len(frames)
        for image in [*frames, *[frames[-1]] * pause]:
            self._container.mux(self._stream.encode(self._from_array(np.asarray(image), format="rgb24")))

    def write(self, path: Path) -> int:
        """Writes the file atomically and returns its size in bytes."""
        self._container.mux(self._stream.encode())
        self._container.close()
        content = self._file.read_bytes()
        self._scratch.cleanup()
        return _write_film(path, content)


def _palette(frames: Sequence[Image.Image]) -> Image.Image:
    """Returns a palette of some frames, evenly spaced over the episode: their most frequent colours, and means."""
    chosen = [frames[i] for i in np.linspace(0, len(frames) - 1, min(_PALETTE_SAMPLES, len(frames))).astype(int)]
    width, height = frames[0].size
    sheet = Image.new("RGB", (width, height * len(chosen)))
    for i, frame in enumerate(chosen):
        sheet.paste(frame, (0, i * height))
    counted = sheet.getcolors(sheet.width * sheet.height) or []
    exact = [colour for _, colour in sorted(counted, reverse=True)[:_EXACT_COLOURS]]
    means = sheet.quantize(_MEAN_COLOURS, method=Image.Quantize.MEDIANCUT).getpalette() or []
    colours: list[int] = []
    for colour in np.array([*exact, *zip(*[iter(means)] * 3, strict=True)]):
        # Pillow compares colours rounded down to a multiple of four, so a near one would replace a frequent one.
        if not colours or np.abs(np.array(colours).reshape(-1, 3) - colour).max(axis=1).min() >= _MIN_COLOUR_DISTANCE:
            colours += colour.tolist()
    palette = Image.new("P", (1, 1))
    palette.putpalette(colours)
    return palette


def _write_film(path: Path, content: bytes) -> int:
    try:
        write_atomically(path, content)
    except OSError as e:
        raise ConfigError(f"-o {path} cannot be written: {e.strerror}") from e
    return len(content)
