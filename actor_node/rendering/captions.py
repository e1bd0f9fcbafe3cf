"""Captions of a film: a strip below each picture with scenario, episode, step, return and messages.

+------------------------------+
|           picture            |
+==============----------------+   progress of the episode
| scenario          episode  1/3 |
| return -12.3        step 12/25 |
| agent_0 says  C  . # . . . .   |   one cell a symbol; its brightness is the symbol's value
+------------------------------+
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

Messages = Mapping[str, tuple[float, ...]]
"""Speaker -> message: one number 0..1 for each symbol."""
Colour = tuple[int, int, int]

_TEXT_COLOUR: Colour = (240, 243, 247)
_DIM_TEXT_COLOUR: Colour = (157, 169, 184)
_BACKGROUND: Colour = (24, 31, 41)
_BAR_BACKGROUND: Colour = (52, 62, 77)
_BAR_COLOUR: Colour = (94, 168, 255)
_PANEL_GAP = 6
"""Distance between two panels [pixels]."""


class Panel(NamedTuple):
    """One run's picture at one step, and the texts of its caption."""

    picture: Image.Image
    title: str
    episode: str
    step: tuple[int, int]
    """The picture's step and the episode's last step."""
    returns: Mapping[str, float]
    """Side -> return so far; the side's name is empty if there is only one."""
    messages: Messages


def draw_panels(panels: Sequence[Panel]) -> Image.Image:
    """Returns one frame with the panels side by side, aligned at the top; width and height are even, for video."""
    drawn = [_draw(panel) for panel in panels]
    width = sum(image.width for image in drawn) + _PANEL_GAP * (len(drawn) - 1)
    height = max(image.height for image in drawn)
    frame = Image.new("RGB", (width + width % 2, height + height % 2), _BACKGROUND)
    left = 0
    for image in drawn:
        frame.paste(image, (left, 0))
        left += image.width + _PANEL_GAP
    return frame


def symbol(message: Sequence[float]) -> str:
    """Returns the letter of a message's largest symbol; a dash if all are zero."""
    largest = max(message, default=0.0)
    return chr(ord("A") + list(message).index(largest) % 26) if largest > 0 else "-"


def _draw(panel: Panel) -> Image.Image:
    picture, step = panel.picture, panel.step
    size = max(11, min(22, round(picture.width / 28)))
    line, bar = round(size * 1.55), max(3, size // 4)
    strip = bar + line * (2 + len(panel.messages)) + round(size * 0.8)
    image = Image.new("RGB", (picture.width, picture.height + strip), _BACKGROUND)
    image.paste(picture, (0, 0))
    draw = ImageDraw.Draw(image)
    _draw_bar(draw, (0, picture.height, picture.width, picture.height + bar), step)
    writer = _Writer(draw, picture.width, size, top=picture.height + bar + round(size * 0.4), line=line)
    writer.write(panel.title, panel.episode, _DIM_TEXT_COLOUR)
    writer.write(_returns_text(panel.returns), f"step {step[0]}/{step[1]}", _TEXT_COLOUR)
    for speaker, message in panel.messages.items():
        writer.write_message(speaker, message)
    return image


def _draw_bar(draw: ImageDraw.ImageDraw, box: tuple[int, int, int, int], step: tuple[int, int]) -> None:
    left, top, right, bottom = box
    draw.rectangle((left, top, right, bottom - 1), fill=_BAR_BACKGROUND)
    done = round((right - left) * step[0] / max(step[1], 1))
    if done:
        draw.rectangle((left, top, left + done, bottom - 1), fill=_BAR_COLOUR)


class _Writer:
    """Writes lines of text from top to bottom; `size` is the height of letters and `line` that of lines, in pixels."""

    def __init__(self, draw: ImageDraw.ImageDraw, width: int, size: int, *, top: int, line: int) -> None:
        self._draw, self._width, self._size, self._top, self._line = draw, width, size, top, line
        self._font, self._edge = _font(size), size // 2

    def write(self, left: str, right: str, colour: Colour) -> None:
        """Writes one text at the left, shortened to the free width, and one at the right."""
        free = self._width - 3 * self._edge - self._font.getlength(right)
        self._text(_shortened(left, self._font, free), colour)
        self._draw.text((self._width - self._edge, self._top), right, font=self._font, fill=colour, anchor="ra")
        self._top += self._line

    def write_message(self, speaker: str, message: Sequence[float]) -> None:
        """Writes a speaker's message, and draws each symbol as a cell with the symbol's value as brightness."""
        cell = max(2, min(self._size, self._width // (2 * max(len(message), 1))))
        gap = 2 if cell > 5 else 0
        left = self._width - self._edge - cell * len(message)
        letter = f" says {symbol(message)}"
        free = left - 2 * self._edge - self._font.getlength(letter)
        self._text(_shortened(speaker, self._font, free) + letter, _TEXT_COLOUR)
        for i, value in enumerate(message):
            fraction = min(max(value, 0.0), 1.0)
            fill = tuple(
                round(low + fraction * (high - low)) for low, high in zip(_BAR_BACKGROUND, _BAR_COLOUR, strict=True)
            )
            at = left + i * cell
            self._draw.rectangle((at, self._top + 1, at + cell - 1 - gap, self._top + cell - gap), fill=fill)
        self._top += self._line

    def _text(self, text: str, colour: Colour) -> None:
        self._draw.text((self._edge, self._top), text, font=self._font, fill=colour)


def _returns_text(returns: Mapping[str, float]) -> str:
    # Not a typographic minus: the font that comes with Pillow has ASCII only.
    return "return " + "  ".join(f"{side} {value:.1f}".strip() for side, value in returns.items())


def _shortened(text: str, font: ImageFont.FreeTypeFont, free: float) -> str:
    plain = text.encode("ascii", "replace").decode()
    if font.getlength(plain) <= free:
        return plain
    while plain and font.getlength(plain + "...") > free:
        plain = plain[:-1]
    return plain + "..."


@lru_cache(maxsize=8)
def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise TypeError("Pillow was built without FreeType, which draws the captions")
    return font
