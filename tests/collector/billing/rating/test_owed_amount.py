"""An amount that was taken off is neither charged nor given back a second time."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.collector.billing.rating.owed_amount import compute_due


@pytest.mark.parametrize(
    ("amount", "lines", "due"),
    [
        (100, [], 100),
        (130, [(100, 100)], 30),
        (100, [(100, 100)], 0),
        (70, [(100, 100)], 0),
        (120, [(100, 100), (50, 0)], -30),
        (70, [(100, 50)], 0),
        (30, [(100, 50)], -20),
        (100, [(100, 50), (-20, 0)], 20),
        (70, [(100, 100), (-30, 0)], 30),
        (-50, [(-50, -50)], 0),
        (0, [(-50, 0)], 50),
        (-50, [(-50, 0), (50, 0)], -50),
        (-32, [(-158, 0), (126, 126)], 0),
        (-32, [(-158, 0), (126, 126), (126, 126)], 0),
        (0, [(-158, 0), (126, 126)], 32),
        (-100, [(-158, 0), (126, 126)], 0),
        (20, [(100, 100), (-80, 0), (-60, 0)], 140),
    ],
    ids=[
        "nothing invoiced",
        "more usage after a void invoice",
        "the same usage after a void invoice",
        "less usage than was void",
        "less usage of a later line that stands",
        "less usage than before a credit note, more than it left",
        "less usage than a credit note left",
        "usage that rises again",
        "a void invoice whose usage was given back before",
        "a void change of plans",
        "unused time of a fee that became void later",
        "that fee is paid after all",
        "a credited correction of unused time",
        "two credited corrections of unused time",
        "less unused time after a credited correction",
        "more unused time after a credited correction",
        "more was given back than was charged and stands",
    ],
)
def test_due_amount_of_lines_that_were_taken_off(amount: int, lines: list[tuple[int, int]], due: int) -> None:
    assert compute_due(amount, lines) == due


@given(st.integers(0, 2**32))
def test_any_life_owes_its_usage_less_the_cents_taken_off(seed: int) -> None:
    """A second opinion keeps each cent in a set. Usage grows and is corrected; a cent is charged and taken off once."""
    chance = random.Random(seed)
    lines: list[tuple[int, int]] = []
    cents: list[set[int]] = []
    taken: set[int] = set()
    for _ in range(chance.randrange(1, 9)):
        if chance.random() < 0.6 or not lines:
            reached = chance.randrange(max((max(cent, default=0) for cent in cents), default=0), 40)
            new = set(range(1, reached + 1)) - taken - set().union(*cents)
            assert compute_due(reached, lines) == len(new), (lines, sorted(taken))
            if new:
                lines.append((len(new), 0))
                cents.append(new)
        else:
            at = chance.randrange(len(lines))
            off = sorted(cents[at] - taken)[-chance.randrange(1, 40) :]
            taken |= set(off)
            lines[at] = lines[at][0], lines[at][1] + len(off)
        less = chance.randrange(40)
        owed = sum(charged - taken_off for charged, taken_off in lines)
        assert compute_due(less, lines) == len(set(range(1, less + 1)) - taken) - owed


@given(st.integers(0, 2**32))
def test_repeated_rating_charges_nothing_more(seed: int) -> None:
    chance = random.Random(seed)
    lines: list[tuple[int, int]] = []
    for _ in range(chance.randrange(1, 9)):
        amount = chance.randrange(40)
        if due := compute_due(amount, lines):
            lines.append((due, 0))
        assert compute_due(amount, lines) == 0, lines
        assert sum(charged - taken_off for charged, taken_off in lines) <= amount
        if lines and chance.random() < 0.5:
            at = chance.randrange(len(lines))
            charged, taken_off = lines[at]
            lines[at] = charged, taken_off + (chance.randint(0, charged - taken_off) if charged > taken_off else 0)
