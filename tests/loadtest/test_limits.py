"""Limits as their clients see them: which 429s were due, and how full the fullest window was."""

import pytest

from loadtest.limits import CustomerRequests, Span, compute_accepted, find_false_refusals, find_worst_window

WINDOW = 28.0
"""Of which a cell is a second."""


def at(*moments: float) -> list[Span]:
    return [(moment, moment + 0.1) for moment in moments]


@pytest.mark.parametrize(
    ("admitted", "refused", "due"),
    [
        ((0, 1, 2), 10, True),
        ((0, 1), 10, False),
        ((0, 1, 10.05), 10, True),  # admitted while the refused one was under way
        ((0, 1, 10.2), 10, False),
        ((0, 1, 2), 28.95, True),  # within the window and a cell
        ((0, 1, 2), 29.2, False),
    ],
)
def test_a_429_is_due_where_the_window_may_have_been_full(
    admitted: tuple[float, ...], refused: float, due: bool
) -> None:
    requests = CustomerRequests(at(*admitted), at(refused), [])
    assert (not find_false_refusals(requests, 3, WINDOW)) == due


def test_a_request_without_an_answer_may_have_been_admitted() -> None:
    assert find_false_refusals(CustomerRequests(at(0, 1), at(10), at(5)), 3, WINDOW) == []


def test_the_worst_window_is_held_to_its_own_row() -> None:
    burst = at(*(number / 100 for number in range(90)))  # 90 at once, from idle
    again = at(*(100 + number / 100 for number in range(90)))  # and later
    first = find_worst_window(CustomerRequests(burst, [], []), 60, 60.0, 3, seconds=60)
    assert first is not None
    assert (first.admitted, first.accepted) == (90, 90)
    later = find_worst_window(CustomerRequests(burst + again, [], []), 60, 60.0, 3, seconds=200)
    assert later is not None
    assert (later.admitted, later.accepted) == (90, 63)
    assert later.begin > 100
    bursts = find_worst_window(CustomerRequests(burst + again, [], []), 60, 60.0, 3, seconds=200, bursts=True)
    assert bursts is not None
    assert bursts.accepted == 90
    cut = find_worst_window(CustomerRequests(burst + again, [], []), 60, 60.0, 3, seconds=200, cut=[(90, 120)])
    assert cut is not None
    assert cut.accepted == 75


@pytest.mark.parametrize(
    ("limit", "demand", "flags", "may"),
    [
        (60, 3, {}, 63),
        (600, 3, {}, 618),
        (600, 20, {}, 630),
        (60, 20, {}, 64),
        (60, 3, {"first": True}, 90),
        (600, 3, {"first": True}, 690),
        (600, 3, {"moved": True}, 642),
        (600, 3, {"cut": True}, 750),
        (600, 4, {"cut": True}, 780),
    ],
)
def test_accepted_requests_have_a_bound_per_limit(
    limit: int, demand: float, flags: dict[str, bool], may: float
) -> None:
    assert compute_accepted(
        limit, 3, demand, **{"first": False, "moved": False, "cut": False, **flags}
    ) == pytest.approx(may)
