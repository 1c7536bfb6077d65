"""The picture of docs/limits/limits.md shows the algorithms' present behaviour."""

import pytest

from edgeproxy.edge.limits.kinds import KINDS
from loadtest.bench.picture.__main__ import PICTURE
from loadtest.bench.picture.drawing import COLOURS, drawing
from loadtest.bench.picture.traffic import MINUTE, PHASES, PLANS, Outcome, outcomes, table

PAGE = PICTURE.with_suffix(".md")
AGAIN = "draw it anew: .venv/bin/python -m loadtest.bench.picture"
DEEP = {"token_bucket": 60, "hybrid": 6}


@pytest.fixture(scope="module")
def found() -> list[Outcome]:
    return outcomes()


def test_committed_picture_matches_the_algorithms(found: list[Outcome]) -> None:
    assert PICTURE.read_text() == drawing(found), AGAIN


def test_committed_table_matches_the_algorithms(found: list[Outcome]) -> None:
    assert f"]({PICTURE.name})\n\n{table(found)}\n" in PAGE.read_text(), AGAIN


def test_picture_shows_every_algorithm() -> None:
    assert {plan.name for plan in PLANS} == KINDS.keys() == COLOURS.keys()


@pytest.mark.parametrize("name", [plan.name for plan in PLANS])
def test_drawn_admissions_stay_within_the_documented_bounds(found: list[Outcome], name: str) -> None:
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
