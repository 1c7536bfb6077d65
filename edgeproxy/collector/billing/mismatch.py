"""How far two books of the same usage may be apart, and what is done about it. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Literal, NamedTuple

WARN_PARTS = 10_000
"""More than one part of so many (0.01 %) closes the roll-out gate, and warns."""
PAGE_PARTS = 1_000
"""More than one part of so many (0.1 %) pages."""

Kind = Literal["A", "B", "C", "D", "E"]
ABOUT: Mapping[Kind, str] = {
    "A": "the ledger and the outbox",
    "B": "the outbox and Stripe's sums",
    "C": "the rater and Stripe's invoice",
    "D": "payments and the journal",
    "E": "credit entries and balances",
}
"""What is held against what."""
EXACT: frozenset[Kind] = frozenset({"A", "C", "D", "E"})
"""Where any difference pages, as nothing but a fault of ours can make one."""


UNITS = " in units"
"""What the meter of a row of C ends with where it is about what Stripe has counted of it, not about cents."""


class Level(StrEnum):
    """How bad a difference is."""

    NONE = "none"
    WARN = "warn"
    PAGE = "page"


class Row(NamedTuple):
    """A number in both books: units, or cents."""

    customer: str
    meter: str
    ours: int
    theirs: int

    @property
    def difference(self) -> int:
        """What the other book has too much; below zero what it lacks."""
        return self.theirs - self.ours


class Drift(NamedTuple):
    """How far two books are apart."""

    compared: int
    """Rows that were held against each other."""
    units: int
    """What ours come to."""
    different: int
    """What the differences come to, each without its sign."""

    @property
    def ratio(self) -> float:
        """Different units of all; 1 where there are none of ours."""
        if not self.different:
            return 0.0
        return min(1.0, self.different / self.units) if self.units else 1.0


LEVELS = (Level.NONE, Level.WARN, Level.PAGE)
"""From what is well to what is worst."""


def measured(rows: Iterable[Row]) -> Drift:
    """Measure how far these rows are apart."""
    compared = units = different = 0
    for row in rows:
        compared += 1
        units += abs(row.ours)
        different += abs(row.difference)
    return Drift(compared, units, different)


def level(kind: Kind, drift: Drift) -> Level:
    """Say how bad it is: whole numbers, so that the threshold itself is not above it."""
    if not drift.different:
        return Level.NONE
    if kind in EXACT or drift.different * PAGE_PARTS > drift.units:
        return Level.PAGE
    return Level.WARN if drift.different * WARN_PARTS > drift.units else Level.NONE


def by_meter(rows: Iterable[Row]) -> dict[str, Drift]:
    """Measure each meter by itself, so that none is lost among the units of a larger one."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row.meter, []).append(row)
    return {meter: measured(some) for meter, some in sorted(found.items())}


def worst(drifts: Iterable[Drift]) -> Drift:
    """Return the one with the largest ratio, and of several the one with most rows."""
    return max(drifts, key=lambda one: (one.ratio, one.compared), default=Drift(0, 0, 0))


def highest(kind: Kind, drifts: Iterable[Drift]) -> Level:
    """Say how bad the worst of these is."""
    return max((level(kind, one) for one in drifts), key=LEVELS.index, default=Level.NONE)


def lasting(rounds: Sequence[Sequence[Row]]) -> list[Row]:
    """Return the rows of the last time that books were held against each other, with the differences alone that were
    the same each time: what came in between is mended by the next one.
    """
    same = set.intersection(*({(row.customer, row.meter, row.difference) for row in rows} for rows in rounds))
    return [
        row if (row.customer, row.meter, row.difference) in same else row._replace(theirs=row.ours)
        for row in rounds[-1]
    ]


def what_to_do(kind: Kind, row: Row) -> str:
    """Say what a person does about a row that differs."""
    if not row.difference:
        return "nothing: they agree"
    about: Kind = "B" if row.meter.endswith(UNITS) else kind
    return ADVICE[about, row.difference > 0].format(abs(row.difference))


ADVICE: Mapping[tuple[Kind, bool], str] = {
    (
        "A",
        True,
    ): "the outbox has {} units that the ledger lacks: stop charging, and look for usage that is gone",
    (
        "A",
        False,
    ): "the outbox lacks {} units: the next hourly comparison makes a revision of them",
    ("B", True): "Stripe counted {} units too many: a revision of minus that much is due before the invoice is paid",
    ("B", False): "Stripe lacks {} units: look at rejected rows of the outbox; what is mended becomes a revision",
    ("C", True): "the invoice is {} cents too high: void it or credit the difference, and do not let it be paid",
    ("C", False): "the invoice is {} cents too low: accept it with a reason, or add the difference to the next one",
    ("D", True): "{} cents were paid that the journal lacks: replay the webhook of the payment",
    ("D", False): "the journal has {} cents that were not paid: look for a refund or a dispute that was not taken in",
    ("E", True): "the balance is {} millicredits above its entries: stop charging, and verify the journal",
    ("E", False): "the balance is {} millicredits below its entries: stop charging, and verify the journal",
}
"""What is done where the other book has too much (True), or too little."""
