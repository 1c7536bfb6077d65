"""The colours of style.css: text can be read, and charts can be seen, in the light and in the dark scheme."""

import re

import pytest

from edgeproxy.collector.pages.rendering import read_static

STYLE = read_static("style.css").decode()
TEXT_MIN, GRAPHIC_MIN = 4.5, 3.0
"""Contrast of text and of graphics (WCAG 2.2, 1.4.3 and 1.4.11)."""
TEXTS = [
    *((text, ground) for text in ("ink", "soft", "faint", "accent") for ground in ("bg", "card", "sunk", "hover")),
    *((state, f"{state}-bg") for state in ("ok", "warn", "bad", "info", "accent")),
    *((state, "card") for state in ("ok", "warn", "bad", "info")),
    *(("ink", f"{state}-bg") for state in ("ok", "warn", "bad", "info")),
    *(("soft", f"{state}-bg") for state in ("ok", "warn", "bad")),
    *(("faint", f"{state}-bg") for state in ("ok", "warn", "bad")),
    ("on-accent", "accent"),
    ("on-state", "bad"),
]
GRAPHICS = [(series, "card") for series in ("c1", "c2", "c3", "c4", "c0", "ok-bar", "warn", "bad", "edge")]


def read_colour(name: str, scheme: int) -> tuple[float, float, float]:
    """Return the red, green and blue of a token in the light scheme (0) or the dark one (1), linear, from 0 to 1."""
    (pair,) = re.findall(rf"--{name}: light-dark\((#\w+), (#\w+)\)", STYLE)
    channels = [int(pair[scheme][at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (
        channel / 12.92 if channel <= 0.04045 else ((channel + 0.055) / 1.055) ** 2.4 for channel in channels
    )
    return red, green, blue


def compute_contrast(one: str, other: str, scheme: int) -> float:
    """Return the contrast ratio of two tokens (WCAG 2.2)."""
    lights = []
    for name in (one, other):
        red, green, blue = read_colour(name, scheme)
        lights.append(0.2126 * red + 0.7152 * green + 0.0722 * blue)
    return (max(lights) + 0.05) / (min(lights) + 0.05)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize(("pairs", "least"), [(TEXTS, TEXT_MIN), (GRAPHICS, GRAPHIC_MIN)], ids=["texts", "graphics"])
def test_text_colours_reach_the_required_contrast(pairs: list[tuple[str, str]], least: float, scheme: int) -> None:
    weak = {pair: round(compute_contrast(*pair, scheme), 2) for pair in pairs}
    assert {pair: contrast for pair, contrast in weak.items() if contrast < least} == {}
