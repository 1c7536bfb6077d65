"""Charts as coordinates for SVG; a table below each has the same figures. Pure."""

from collections.abc import Sequence
from typing import NamedTuple

WIDTH, HEIGHT, GAP = 640, 120, 2


class Bar(NamedTuple):
    """A bar: its place, its size and its value."""

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
    """Return the height of a value where `most` fills the drawing; values below zero have none."""
    return round(HEIGHT * max(value, 0) / most, 1) if most > 0 else 0.0


def draw_bars(values: Sequence[float], places: int | None = None, most: float | None = None) -> Chart:
    """Return the bars of values, from left to right.

    `places` is the number of bars for which there is room, by default that of the values; `most` is the value that
    fills the drawing, by default the largest.
    """
    step = WIDTH / max(places or len(values), 1)
    most = max(values, default=0) if most is None else most
    drawn = []
    for number, value in enumerate(values):
        tall = compute_height(value, most)
        drawn.append(Bar(round(number * step, 1), round(HEIGHT - tall, 1), round(step - GAP, 1), tall, value))
    return Chart(drawn, WIDTH, HEIGHT, most)
