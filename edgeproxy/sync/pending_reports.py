"""What workers say that they use of limits that hosts share, until somebody looks at it: the last word on each row."""

from collections import OrderedDict
from typing import Any

Message = dict[str, Any]
Place = tuple[str, str, int, int]
"""`rates` or `totals`, a table, its file, and a row."""

KINDS = ("rates", "totals")


class PendingReports:
    """Rows in the order in which they were first said to be used. What is said: proxy/claim_waiter.py."""

    def __init__(self) -> None:
        self._rows: OrderedDict[Place, list[Any]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, place: Place, use: list[Any]) -> None:
        """A row is used, as a worker has said it."""
        before = self._rows.get(place)
        if place[0] == "rates" and before is not None:
            use[-1] |= before[-1]  # Something was refused since it was last looked at.
        self._rows[place] = use

    def add_older(self, place: Place, use: list[Any]) -> None:
        """A row was used some time ago: that matters where nothing has been said of it since."""
        self._rows.setdefault(place, use)

    def take(self) -> tuple[Place, list[Any]]:
        """The first one, which is then looked at."""
        return self._rows.popitem(last=False)

    def message(self) -> Message:
        """All of them, as one message to whoever looks at them."""
        said: Message = {"type": "uses"} | {kind: [] for kind in KINDS}
        while self._rows:
            place, use = self.take()
            said[place[0]].append(use)
        return said


def places(message: Message) -> list[tuple[Place, list[Any]]]:
    """What a message says."""
    return [((kind, *use[:3]), use) for kind in KINDS for use in message[kind]]
