"""What a balance of credits buys, at what a customer's usage has cost lately."""

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
"""Units that people reckon in, the best first."""
RowView = Mapping[str, str | int]


class Worth(NamedTuple):
    """How much of a meter a balance buys."""

    display: MeterDisplay
    quantity: int
    is_alone: bool
    """Whether no other one has its unit, so that the unit says which it is."""


async def fetch_worths(visit: Visit, terms: Credits | None, currency: str, available: int) -> list[Worth]:
    """Fetch the usage of the last days, and return what these millicredits buy at its cost; nothing where there is no
    such usage."""
    if terms is None or available <= 0:
        return []
    until = int(time.time()) // 60 * 60
    span = {"from": format_time(until - DAYS * 86400), "to": format_time(until)}
    response = await visit.call("GET", "/v1/usage", query={"customer": visit.customer, **span, "by": "meter"})
    if not response.is_success:
        return []
    return compute_worths(response.body["rows"], visit.site.settings_now().meters, terms.meters, currency, available)


def compute_worths(
    rows: Sequence[RowView], meters: Mapping[str, Meter], costs: Mapping[str, str], currency: str, available: int
) -> list[Worth]:
    """Compute what these millicredits buy of each meter, if a unit costs what it has cost so far.

    `rows` are the usage by meter, `costs` the meters of credits by currency. Requests come first, then tokens, then
    the meters of which they buy most.
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
