"""The quantities that a credit balance buys, and the days it lasts, at the costs of a customer's recent usage."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from edgeproxy.collector.languages.meter_display import MeterDisplay, find_display
from edgeproxy.collector.ledger.queries import format_time
from edgeproxy.collector.pages.site import Visit
from edgeproxy.config.collector.credits import Credits
from edgeproxy.config.meters import MEASURES, Meter

DAYS = 30
WORTHS_MAX = 3
MEASURED = ("requests", "tokens")
"""Preferred units, the best first."""
DAYS_LEFT_MAX = 365
"""Longest prediction. Beyond that an estimate is meaningless."""
RowView = Mapping[str, str | int]


class Worth(NamedTuple):
    """The quantity of a meter that a balance buys."""

    display: MeterDisplay
    quantity: int
    is_alone: bool
    """True if no other listed meter has this unit, so the unit identifies the meter."""


class Outlook(NamedTuple):
    """The prospects of a balance at the costs of the last days."""

    worths: Sequence[Worth] = ()
    days: int | None = None
    """Whole days that it lasts; None if nothing was spent, or if it lasts longer than DAYS_LEFT_MAX."""


async def fetch_outlook(visit: Visit, terms: Credits | None, currency: str, available: int) -> Outlook:
    """Fetch the usage of the last days, and return the prospects of `available` millicredits at its costs."""
    if terms is None or available <= 0:
        return Outlook()
    until = int(time.time()) // 60 * 60
    span = {"from": format_time(until - DAYS * 86400), "to": format_time(until)}
    response = await visit.call("GET", "/v1/usage", query={"customer": visit.customer, **span, "by": "meter"})
    if not response.is_success:
        return Outlook()
    rows, meters = response.body["rows"], visit.site.settings_now().meters
    spent = sum(int(row["value"]) for row in rows if row["meter"] == terms.meters.get(currency))
    days = available * DAYS // spent if spent > 0 else DAYS_LEFT_MAX
    worths = compute_worths(rows, meters, terms.meters, currency, available)
    return Outlook(worths, days if days < DAYS_LEFT_MAX else None)


def compute_worths(
    rows: Sequence[RowView], meters: Mapping[str, Meter], costs: Mapping[str, str], currency: str, available: int
) -> list[Worth]:
    """Compute the quantity of each meter that `available` millicredits buy, at the current cost per unit.

    `rows` are the usage by meter. `costs` has the credit meter of each currency. Requests come first, then tokens, then
    other meters by quantity.
    """
    used = {str(row["meter"]): int(row["value"]) for row in rows}
    spent = used.get(costs.get(currency, ""), 0)
    if spent <= 0:
        return []
    affordable = [
        (find_display(meters, name), available * quantity // spent)
        for name, quantity in used.items()
        if name in meters and name not in costs.values() and not MEASURES[meters[name].count].is_of_refusals
    ]
    affordable = [(display, quantity) for display, quantity in affordable if quantity >= 1]
    affordable.sort(key=lambda one: (_rank_unit(one[0].unit), -one[1], one[0].label))
    affordable = affordable[:WORTHS_MAX]
    units = Counter(display.unit for display, _ in affordable)
    return [
        Worth(display, quantity, bool(display.unit) and units[display.unit] == 1) for display, quantity in affordable
    ]


def _rank_unit(unit: str) -> int:
    return MEASURED.index(unit) if unit in MEASURED else len(MEASURED)
