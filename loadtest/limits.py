"""Check whether a limit was kept, as its clients saw it. Pure.

The bound is the accept column of the algorithm's targets: the requests, as a share of the limit L, that bounded sync
admits in any window, with hosts that report to each other once a second.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from typing import NamedTuple

CELLS = 28
"""Cells of a window: a request counts for up to one cell longer than the window."""

Span = tuple[float, float]
"""Begin and end in seconds."""


class CustomerRequests(NamedTuple):
    """A customer's requests: the start and the answer of each.

    `unsure` requests got no answer; an edge may have admitted them.
    """

    admitted: list[Span]
    refused: list[Span]
    unsure: list[Span]


class WorstWindow(NamedTuple):
    """The window that exceeds its bound most: its begin, its requests, and the accepted number."""

    begin: float
    admitted: int
    accepted: float

    @property
    def excess(self) -> float:
        """The admitted requests as a multiple of the accepted number."""
        return self.admitted / self.accepted


def find_false_refusals(requests: CustomerRequests, limit: int, window: float) -> list[Span]:
    """Return the wrong refusals: fewer than `limit` requests can have been admitted in the window and a cell before
    them.

    An edge may have admitted a request at any moment between its start and its answer. Each request that may have
    counted is treated as counted.
    """
    counted = requests.admitted + requests.unsure
    sent = sorted(begin for begin, _ in counted)
    ended = sorted(end for _, end in counted)
    span = window * (1 + 1 / CELLS)
    return [
        (begin, end)
        for begin, end in requests.refused
        if bisect_left(sent, end) - bisect_right(ended, begin - span) < limit
    ]


def compute_accepted(limit: int, hosts: int, demand: float, *, first: bool, moved: bool, cut: bool) -> float:
    """Return the accepted requests in one window, at a demand of this many times the limit.

    `first`: the window begins with a customer who was idle before, or who sends in bursts. `moved`: clients went to
    another region in it. `cut`: the hub was down in it.
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
    """Return whether one of `spans` overlaps [begin, end)."""
    return any(first < end and last > begin for first, last in spans)


def find_worst_window(
    requests: CustomerRequests,
    limit: int,
    window: float,
    hosts: int,
    *,
    seconds: float,
    share: float | None = None,
    bursts: bool = False,
    moved: Sequence[Span] = (),
    cut: Sequence[Span] = (),
) -> WorstWindow | None:
    """Return the window that exceeds the accepted number most, or comes closest to it; None if nothing was admitted.

    `seconds` is the time with demand. `share` is the accepted excess over the limit and replaces the targets.
    `bursts` means that the customer sends in bursts, each after idle time. `moved` and `cut` say when clients had to
    use other regions, and when the hub was down.
    """
    times = sorted(end for _, end in requests.admitted)
    if not times:
        return None
    demand = (len(requests.admitted) + len(requests.refused)) * window / max(seconds, window) / limit
    worst = None
    last = 0
    # Each window begins with an admitted request: another one has no more requests than the window that begins with its
    # first request.
    for first, begin in enumerate(times):
        while last < len(times) and times[last] < begin + window:
            last += 1
        if share is not None:
            accepted: float = limit * (1 + share)
        else:
            accepted = compute_accepted(
                limit,
                hosts,
                demand,
                first=bursts or begin < times[0] + window,
                moved=overlaps(begin, begin + window, moved),
                cut=overlaps(begin, begin + window, cut),
            )
        window_from_here = WorstWindow(begin, last - first, accepted)
        if worst is None or window_from_here.excess > worst.excess:
            worst = window_from_here
    return worst
