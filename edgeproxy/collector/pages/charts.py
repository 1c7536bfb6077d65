"""Charts, as the places of what SVG draws; a table below each has the same figures. Pure."""

from collections.abc import Sequence
from typing import NamedTuple

WIDTH, HEIGHT, GAP = 640, 120, 2


class Bar(NamedTuple):
    """A bar: where it is, how large it is, and what it stands for."""

    x: float
    y: float
    width: float
    height: float
    value: float


class Chart(NamedTuple):
    """Bars on a drawing of WIDTH by HEIGHT."""

    bars: list[Bar]
    width: int
    height: int
    most: float


def compute_height(value: float, most: float) -> float:
    """How high a value is drawn where `most` fills the drawing; nothing is drawn below zero."""
    return round(HEIGHT * max(value, 0) / most, 1) if most > 0 else 0.0


def draw_bars(values: Sequence[float], places: int | None = None, most: float | None = None) -> Chart:
    """Draw values from left to right; `places` is for how many there is room, by default for these, and `most` is the
    value that fills the drawing, by default the largest of these.
    """
    step = WIDTH / max(places or len(values), 1)
    most = max(values, default=0) if most is None else most
    drawn = []
    for number, value in enumerate(values):
        tall = compute_height(value, most)
        drawn.append(Bar(round(number * step, 1), round(HEIGHT - tall, 1), round(step - GAP, 1), tall, value))
    return Chart(drawn, WIDTH, HEIGHT, most)
