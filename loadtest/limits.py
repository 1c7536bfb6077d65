"""Whether a limit was kept, as its clients saw it: pure.

What is accepted is the accept column of the algorithm's targets: what bounded sync admits in any window, of L, with
hosts that report to each other once a second.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from typing import NamedTuple

CELLS = 28
"""Of a window: a request counts for up to one cell longer than the window."""

Span = tuple[float, float]
"""From one moment to another, in seconds."""


class Asked(NamedTuple):
    """A customer's requests: when each was started and answered. `unsure`: those without an answer, which an edge may
    have admitted."""

    admitted: list[Span]
    refused: list[Span]
    unsure: list[Span]


class Worst(NamedTuple):
    """The window that is furthest from what is accepted: its begin, requests in it, and how many are accepted."""

    begin: float
    admitted: int
    accepted: float


def false_refusals(asked: Asked, limit: int, window: float) -> list[Span]:
    """Those that were not due: fewer than `limit` can have been admitted in the window and a cell before them.

    An edge may have admitted a request at any moment between its start and its answer, so whatever may have counted
    is held to have done so.
    """
    counted = asked.admitted + asked.unsure
    sent = sorted(begin for begin, _ in counted)
    ended = sorted(end for _, end in counted)
    span = window * (1 + 1 / CELLS)
    return [
        (begin, end)
        for begin, end in asked.refused
        if bisect_left(sent, end) - bisect_right(ended, begin - span) < limit
    ]


def accepted(limit: int, hosts: int, demand: float, *, first: bool, moved: bool, cut: bool) -> float:
    """Requests in one window that are accepted of `limit`, at a demand of so many times the limit.

    `first`: the window begins at a customer who was idle before, or who comes in bursts; `moved`: clients went to
    another region in it; `cut`: the hub was away in it.
    """
    rows = [limit + (max(0.03 * limit, hosts) if demand <= 5 else max(0.05 * limit, hosts + 1))]
    if first:
        rows.append((1.5 if limit <= 60 else 1.15) * limit)
    if moved:
        rows.append(1.07 * limit)
    if cut:
        rows.append((1.25 if demand <= 3 else 1.30) * limit)
    return max(rows)


def overlaps(begin: float, end: float, spans: Iterable[Span]) -> bool:
    """Whether one of `spans` has a part in [begin, end)."""
    return any(first < end and last > begin for first, last in spans)


def worst(
    asked: Asked,
    limit: int,
    window: float,
    hosts: int,
    *,
    seconds: float,
    share: float | None = None,
    bursts: bool = False,
    moved: Sequence[Span] = (),
    cut: Sequence[Span] = (),
) -> Worst | None:
    """The window that is furthest above what is accepted, or nearest below; None where nothing was admitted.

    `seconds`: for which there was demand; `share`: what is accepted above the limit instead of the targets; `bursts`:
    whether the customer comes in bursts, each of them from idle; `moved` and `cut`: when clients had to go to other
    regions, and when the hub was away.
    """
    times = sorted(end for _, end in asked.admitted)
    if not times:
        return None
    demand = (len(asked.admitted) + len(asked.refused)) * window / max(seconds, window) / limit
    found = None
    last = 0
    for number, begin in enumerate(times):
        while last < len(times) and times[last] < begin + window:
            last += 1
        if share is not None:
            may: float = limit * (1 + share)
        else:
            may = accepted(
                limit,
                hosts,
                demand,
                first=bursts or begin < times[0] + window,
                moved=overlaps(begin, begin + window, moved),
                cut=overlaps(begin, begin + window, cut),
            )
        one = Worst(begin, last - number, may)
        if found is None or one.admitted / one.accepted > found.admitted / found.accepted:
            found = one
    return found
