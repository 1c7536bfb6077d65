"""Errors of customers, counted by customer, route, status and answerer, until the supervisor takes them.

They are counted in the memory of a worker, because they are not part of usage: a killed worker loses one second of
them. Successful requests pay nothing for it.
"""

from collections.abc import Callable
from typing import Final

from edgeproxy.edge.messages import ErrorsCounted
from edgeproxy.wire.batch import ANONYMOUS

GROUPS_MAX: Final = 2000
"""Groups that wait for the supervisor. Errors of further groups are counted without a customer."""
Group = tuple[str, str, int, str]
"""The customer, with the residency if it is not the edge's own, the route, the status, and the answerer: one of
`ANSWERERS` of wire/traffic_report.py.
"""


class ErrorCounter:
    """The counter of one group."""

    __slots__ = ("_errors", "_group")

    def __init__(self, errors: "ErrorCounts", group: Group) -> None:
        self._errors, self._group = errors, group

    def add(self, n: int = 1) -> None:
        """Count `n` more errors."""
        self._errors.add(self._group, n)


class ErrorCounts:
    """The errors of one worker. `offer` sends the supervisor a message and returns False if it was not taken."""

    def __init__(self) -> None:
        self.offer: Callable[[ErrorsCounted], bool] = lambda _: True
        self._counts: dict[Group, int] = {}
        self._unnamed = 0

    def list_counters(self, customer: str, route: str, status: int) -> tuple[ErrorCounter, ...]:
        """List the counters for an upstream's answer with this status: none, unless it is an error of a customer."""
        if status < 500 or customer == ANONYMOUS:
            return ()
        return (ErrorCounter(self, (customer, route, status, "upstream")),)

    def count_own(self, customer: str, route: str, status: int) -> None:
        """Count an answer of the edge's own if it is an error of a customer.

        Refusals by limits are counted elsewhere.
        """
        if status >= 400 and status != 429 and customer != ANONYMOUS:
            self.add((customer, route, status, "edge"), 1)

    def add(self, group: Group, n: int) -> None:
        """Count `n` more errors of a group."""
        if group in self._counts or len(self._counts) < GROUPS_MAX:
            self._counts[group] = self._counts.get(group, 0) + n
        else:
            self._unnamed += n

    def flush(self) -> None:
        """Send all counts to the supervisor, if it takes them now."""
        if self._counts and self.offer(self._collect()):
            self._clear()

    def take(self) -> ErrorsCounted | None:
        """Return the remaining counts, at the end of the worker."""
        message = self._collect() if self._counts else None
        self._clear()
        return message

    def _collect(self) -> ErrorsCounted:
        return ErrorsCounted([(*group, requests) for group, requests in self._counts.items()], self._unnamed)

    def _clear(self) -> None:
        self._counts, self._unnamed = {}, 0
