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


def bars(values: Sequence[float], places: int | None = None) -> Chart:
    """Draw values from left to right; `places` is for how many there is room, by default for these."""
    step = WIDTH / max(places or len(values), 1)
    most = max(values, default=0)
    made = []
    for number, value in enumerate(values):
        height = round(HEIGHT * value / most, 1) if most > 0 else 0.0
        made.append(Bar(round(number * step, 1), round(HEIGHT - height, 1), round(step - GAP, 1), height, value))
    return Chart(made, WIDTH, HEIGHT, most)
