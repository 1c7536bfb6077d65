"""The picture of docs/limits.md: that it shows what the algorithms do today, and that it can be read."""

import xml.etree.ElementTree as ElementTree

import pytest

from edgeproxy.limits.kinds import KINDS
from loadtest.bench.picture.__main__ import PICTURE
from loadtest.bench.picture.drawing import COLOURS, INK, drawing
from loadtest.bench.picture.traffic import MINUTE, PHASES, PLANS, Outcome, outcomes, table

PAGE = PICTURE.with_suffix(".md")
AGAIN = "draw it anew: .venv/bin/python -m loadtest.bench.picture"
DEEP = {"token_bucket": 60, "hybrid": 6}
LEAST_CONTRAST = 4.5
"""Of text on its ground: WCAG 2.2, 1.4.3."""


@pytest.fixture(scope="module")
def found() -> list[Outcome]:
    return outcomes()


def test_the_picture_is_what_the_algorithms_do(found: list[Outcome]) -> None:
    assert PICTURE.read_text() == drawing(found), AGAIN


def test_the_table_beneath_it_too(found: list[Outcome]) -> None:
    assert f"]({PICTURE.name})\n\n{table(found)}\n" in PAGE.read_text(), AGAIN


def test_every_algorithm_is_in_it() -> None:
    assert {plan.name for plan in PLANS} == KINDS.keys() == COLOURS.keys()


@pytest.mark.parametrize("name", [plan.name for plan in PLANS])
def test_what_is_drawn_is_within_what_the_page_promises(found: list[Outcome], name: str) -> None:
    """With one worker: the window by any minute, the bucket by any pair of moments."""
    (outcome,) = [outcome for outcome in found if outcome.plan.name == name]
    times = outcome.admitted
    assert 0 < len(times) < sum(phase.requests for phase in PHASES)
    if name in ("sliding_window", "hybrid"):
        assert outcome.most == 60
    if name in DEEP:
        for first, since in enumerate(times):
            assert all(
                1 + last - first <= DEEP[name] + (times[last] - since) * 60 / MINUTE + 1e-2
                for last in range(first, len(times))
            )


def test_it_is_an_image_with_a_title_and_a_description(found: list[Outcome]) -> None:
    root = ElementTree.fromstring(drawing(found))
    names = {"s": "http://www.w3.org/2000/svg"}
    assert root.get("role") == "img"
    for part in root.get("aria-labelledby", "").split():
        assert root.findtext(f"s:*[@id='{part}']", namespaces=names)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize("name", [*COLOURS, "ink", "quiet"])
def test_text_can_be_read_on_light_and_on_dark(name: str, scheme: int) -> None:
    text, ground = luminance((COLOURS | INK)[name][scheme]), luminance(INK["ground"][scheme])
    assert (max(text, ground) + 0.05) / (min(text, ground) + 0.05) >= LEAST_CONTRAST


def luminance(colour: str) -> float:
    """The relative luminance of #rrggbb, as WCAG 2.2 defines it."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
