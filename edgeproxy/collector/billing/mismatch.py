"""Drift between two books of the same usage: its thresholds, and advice on what to do. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Literal, NamedTuple

from typing_extensions import TypedDict

from edgeproxy.config.collector.currency_units import USD

WARN_PARTS = 10_000
"""A drift of more than one part in this number (0.01 %) closes the roll-out gate and warns."""
PAGE_PARTS = 1_000
"""A drift of more than one part in this number (0.1 %) pages."""

ReconciliationKind = Literal["A", "B", "C", "D", "E"]
COMPARED_BOOKS: Mapping[ReconciliationKind, str] = {
    "A": "the ledger and the outbox",
    "B": "the outbox and Stripe's sums",
    "C": "the rater and Stripe's invoice",
    "D": "the journal and Stripe's balance",
    "E": "credit entries and balances",
}
"""The two books that each kind compares."""
EXACT_KINDS: frozenset[ReconciliationKind] = frozenset({"A", "C", "D", "E"})
"""Kinds whose differences always page, because only a fault of ours can cause one."""
UNITS_SUFFIX = " in units"
"""The suffix of the meter in a row of kind C that compares units counted by Stripe, not cents."""


class Level(StrEnum):
    """The severity of a difference."""

    NONE = "none"
    WARN = "warn"
    PAGE = "page"


class Comparison(NamedTuple):
    """A number in both books: units, or cents."""

    customer: str
    meter: str
    ours: int
    theirs: int

    @property
    def difference(self) -> int:
        """The other book's excess over ours; negative for a shortfall."""
        return self.theirs - self.ours


class InvoiceDifference(TypedDict):
    """A line of a held invoice whose amount differs at Stripe."""

    meter: str
    """The meter of the line. A line without a meter has its kind: `fee`, `proration`, `subtotal`, `total`, or `another
    line` for a line that only Stripe has.
    """
    of: Literal["amount", "quantity"]
    """`amount`: the numbers are in the smallest unit of the currency; `quantity`: they are units of the meter, as
    Stripe counts it.
    """
    ours: int
    """The collector's number; 0 if only Stripe has the line."""
    theirs: int
    """Stripe's number; 0 if Stripe lacks the line."""
    difference: int
    """Stripe's number minus the collector's; negative if Stripe's is smaller."""
    action: str
    """Advice for the operator."""


class Drift(NamedTuple):
    """The difference between two books."""

    compared: int
    """The number of compared rows."""
    units: int
    """The sum of our numbers."""
    different: int
    """The sum of all absolute differences."""

    @property
    def ratio(self) -> float:
        """The share of units that differ; 1 if only the other book has units."""
        if not self.different:
            return 0.0
        return min(1.0, self.different / self.units) if self.units else 1.0


LEVELS = (Level.NONE, Level.WARN, Level.PAGE)
"""All levels, from the least severe to the most."""


def measure_drift(rows: Iterable[Comparison]) -> Drift:
    """Return the drift of these rows."""
    compared = units = different = 0
    for row in rows:
        compared += 1
        # Absolute values, so that a refund in one row does not hide a difference in another one.
        units += abs(row.ours)
        different += abs(row.difference)
    return Drift(compared, units, different)


def classify_drift(kind: ReconciliationKind, drift: Drift) -> Level:
    """Return the level of a drift. Whole numbers are compared, so that a drift equal to a threshold is not above it."""
    if not drift.different:
        return Level.NONE
    # Multiplied, not divided: no rounding, and no division by zero units.
    if kind in EXACT_KINDS or drift.different * PAGE_PARTS > drift.units:
        return Level.PAGE
    return Level.WARN if drift.different * WARN_PARTS > drift.units else Level.NONE


def measure_drift_by_meter(rows: Iterable[Comparison]) -> dict[str, Drift]:
    """Return the drift of each meter by itself, so that none is hidden by the units of a larger one."""
    rows_by_meter: dict[str, list[Comparison]] = {}
    for row in rows:
        rows_by_meter.setdefault(row.meter, []).append(row)
    return {meter: measure_drift(meter_rows) for meter, meter_rows in sorted(rows_by_meter.items())}


def worst_drift(drifts: Iterable[Drift]) -> Drift:
    """Return the drift with the largest ratio; among equals, the one with the most rows."""
    return max(drifts, key=lambda drift: (drift.ratio, drift.compared), default=Drift(0, 0, 0))


def highest_level(kind: ReconciliationKind, drifts: Iterable[Drift]) -> Level:
    """Return the level of the worst of these drifts."""
    return max((classify_drift(kind, drift) for drift in drifts), key=LEVELS.index, default=Level.NONE)


def select_lasting(rounds: Sequence[Sequence[Comparison]]) -> list[Comparison]:
    """Return the rows of the last comparison, with only the differences that were equal in each round.

    A difference caused by usage that arrived in between is fixed by the next comparison.
    """
    # With the difference in the key: a number that moves between the rounds is still on its way.
    lasting_differences = set.intersection(
        *({(row.customer, row.meter, row.difference) for row in rows} for rows in rounds)
    )
    return [
        row if (row.customer, row.meter, row.difference) in lasting_differences else row._replace(theirs=row.ours)
        for row in rounds[-1]
    ]


def get_advice(kind: ReconciliationKind, row: Comparison) -> str:
    """Return the advice for a row that differs."""
    if not row.difference:
        return "nothing: they agree"
    advice_kind: ReconciliationKind = "B" if row.meter.endswith(UNITS_SUFFIX) else kind
    return ADVICE[advice_kind, row.difference > 0].format(abs(row.difference))


def to_difference(row: Comparison) -> InvoiceDifference:
    """Return a differing invoice line in the form of the API."""
    meter = row.meter.removesuffix(UNITS_SUFFIX)
    return {
        "meter": meter,
        "of": "amount" if meter == row.meter else "quantity",
        "ours": row.ours,
        "theirs": row.theirs,
        "difference": row.difference,
        "action": get_advice("C", row),
    }


ADVICE: Mapping[tuple[ReconciliationKind, bool], str] = {
    ("A", True): "the outbox has {} units that the ledger lacks: stop charging, and look for usage that is gone",
    ("A", False): "the outbox lacks {} units: the next hourly comparison makes a revision of them",
    ("B", True): "Stripe counted {} units too many: a revision of minus that much is due before the invoice is paid",
    ("B", False): "Stripe lacks {} units: look at rejected rows of the outbox; what is mended becomes a revision",
    ("C", True): "the invoice is {} smallest units too high: void it, or credit the difference before it is paid",
    ("C", False): "the invoice is {} smallest units too low: accept it with a reason, or add them to the next one",
    ("D", True): "Stripe has moved {} smallest units that the journal lacks: edgeproxy billing reconcile --repair",
    (
        "D",
        False,
    ): "the journal has {} smallest units that Stripe has not moved: see edgeproxy billing reconcile",
    ("E", True): "the balance is {} millicredits above its entries: stop charging, and verify the journal",
    ("E", False): "the balance is {} millicredits below its entries: stop charging, and verify the journal",
}
"""The advice by kind, and by whether the other book has too much."""


def name_by_currency(name: str, currency: str) -> str:
    """Return the name, in place of a meter, for an amount in a currency: `balance`, or `balance eur`."""
    return name if currency == USD else f"{name} {currency}"


def find_currency(name: str) -> str:
    """Return the currency of a name from `name_by_currency`."""
    return name.partition(" ")[2] or USD
