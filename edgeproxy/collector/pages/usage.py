"""A customer's usage in this month or billing period for pages: by meter, day and dimension."""

import time
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import astuple, dataclass
from types import MappingProxyType
from typing import NamedTuple, NotRequired, Required

from typing_extensions import TypedDict

from edgeproxy.collector.languages.reader import parse_time
from edgeproxy.collector.ledger import queries
from edgeproxy.collector.ledger.detail import find_detail_start
from edgeproxy.collector.ledger.queries import format_time
from edgeproxy.collector.pages.month import UsageTime
from edgeproxy.collector.pages.site import Visit
from edgeproxy.config.meters import MEASURES

METERS_MAX = 12
"""Meters shown, the most used ones first."""
DIMENSIONS_MAX = 4
"""Dimensions shown."""
VALUES_MAX = 20
"""Values shown per dimension."""
ROWS_MAX = 4000
"""Rows fetched by all dimensions at once. A customer may use a thousand keys."""
DAY_ROWS_MAX = 4000
"""Rows fetched by meter and day."""
DAY_SECONDS = 86400
UNPRICED = frozenset({404, 422})
"""The API's answers about the cost of usage without a plan, and of usage that is not added up."""


class UsageRowView(TypedDict, total=False):
    """A row of `GET /v1/usage`. It also has a field for each requested dimension."""

    meter: Required[str]
    value: Required[int]
    day: str


class UsagePageView(TypedDict):
    """A page of `GET /v1/usage`."""

    rows: list[UsageRowView]
    next: NotRequired[str]


class InvoiceLineView(TypedDict):
    """An invoice line of the API. Only the fields that pages read; the amount is in cents."""

    kind: str
    meter: str
    quantity: int
    package: int
    amount: int


class InvoiceAmountsView(TypedDict):
    """The lines of an invoice or of a projected invoice."""

    lines: list[InvoiceLineView]


class InvoiceProjectionView(TypedDict):
    """The projection of an upcoming invoice. Low and high are None if there are too few days."""

    low: InvoiceAmountsView | None
    high: InvoiceAmountsView | None


class UpcomingInvoiceView(InvoiceAmountsView):
    """The upcoming invoice of the API with its projection. Only the fields that pages read."""

    projected: InvoiceProjectionView


class DayUsage(NamedTuple):
    """The usage of a meter on one day."""

    begins: float
    """The Unix second when the day begins."""
    quantity: int


class MeterUsage(NamedTuple):
    """The usage of a meter in a time."""

    meter: str
    total: int
    days: list[DayUsage]


class MeterCost(NamedTuple):
    """The usage and cost of a meter on the upcoming invoice, so far and projected. Costs are cents.

    Low and high are 0 without a projection. Packages are counted with all of their units.
    """

    meter: str
    used: int
    cost: int
    low: int
    low_cost: int
    high: int
    high_cost: int


class ValueUsage(NamedTuple):
    """The usage of a meter with one value of a dimension. The value is empty for usage without the dimension."""

    value: str
    quantity: int
    share: float
    """The share of the meter's usage, from 0 to 1."""


class Split(NamedTuple):
    """The usage of a meter by the values of a dimension, most used first."""

    meter: str
    dimension: str
    values: list[ValueUsage]
    total: int
    """The usage with all values, listed or not."""
    currency: str = ""
    """The currency of the costs; empty without costs."""
    costs: Mapping[str, int] = MappingProxyType({})
    """The cost of usage with each value, in smallest units."""

    cost: int = 0
    """The sum of the costs of all values, listed or not."""
    is_cost_unknown: bool = False
    """True if the meter may have a cost that the API could not compute."""

    @property
    def others(self) -> int:
        """Return the usage with unlisted values."""
        return self.total - sum(usage.quantity for usage in self.values)

    @property
    def listed_cost(self) -> int:
        """Return the costs of the listed values."""
        return sum(self.costs.get(usage.value, 0) for usage in self.values)


async def fetch_meters(
    visit: Visit, customer: str, span: UsageTime, detail_seconds: float | None = None
) -> list[MeterUsage]:
    """Return a customer's usage by meter, with the days of the last `detail_seconds`; None: all days."""
    now = time.time()
    since = find_first_day(span, now, detail_seconds)
    query = {"customer": customer, "by": "meter,day", "from": format_time(since), "limit": str(DAY_ROWS_MAX)}
    page: UsagePageView = await visit.fetch("GET", "/v1/usage", query=query)
    totals = None
    if since > span.since or "next" in page:
        whole = {"customer": customer, "by": "meter", "from": format_time(span.since)}
        totals = {row["meter"]: row["value"] for row in (await visit.fetch("GET", "/v1/usage", query=whole))["rows"]}
    return compute_meters(page["rows"], span, now, since, totals)


def find_first_day(span: UsageTime, now: float, detail_seconds: float | None) -> int:
    """Return the Unix second of the first shown day of a time, at the Unix second `now`."""
    return span.since if detail_seconds is None else max(span.since, find_detail_start(detail_seconds, now))


async def fetch_splits(visit: Visit, customer: str, since: int, only: Collection[str] | None = None) -> list[Split]:
    """Return a customer's usage since a Unix second by the dimensions of meters, or by the dimensions `only`.

    Meters of refusals are left out.
    """
    counted = visit.site.settings_now().meters
    meters = {key: meter for key, meter in counted.items() if not MEASURES[meter.count].is_of_refusals}
    dimensions = dict.fromkeys(name for meter in meters.values() for name in meter.dimensions)
    names = [name for name in dimensions if only is None or name in only][:DIMENSIONS_MAX]
    if not names:
        return []
    # One query has all dimensions. It returns few more rows, because most meters have at most one dimension.
    whole = await _fetch_usage(visit, customer, since, names, ROWS_MAX)
    splits = []
    for name in names:
        page = await _fetch_usage(visit, customer, since, [name], queries.ROWS_MAX) if "next" in whole else whole
        splits += compute_splits(page["rows"], name, {key for key, meter in meters.items() if name in meter.dimensions})
    return splits


async def fetch_split_costs(visit: Visit, customer: str, since: int, split: Split) -> Split:
    """Return a split with the costs of usage since a Unix second, if the plan has a price for the meter."""
    query = {"customer": customer, "meter": split.meter, "by": split.dimension, "from": format_time(since)}
    response = await visit.call("GET", "/v1/usage/value", query=query)
    if not response.is_success:
        return split._replace(is_cost_unknown=response.status not in UNPRICED)
    if "groups" not in response.body:
        return split
    costs = {group["value"]: group["amount"] for group in response.body["groups"]}
    return split._replace(currency=response.body["currency"], costs=costs, cost=response.body["amount"])


async def _fetch_usage(visit: Visit, customer: str, since: int, names: Sequence[str], limit: int) -> UsagePageView:
    """Fetch the first page of a customer's usage since a Unix second by meter and these dimensions."""
    query = {"customer": customer, "by": ",".join(("meter", *names)), "from": format_time(since), "limit": str(limit)}
    page: UsagePageView = await visit.fetch("GET", "/v1/usage", query=query)
    return page


def compute_splits(rows: list[UsageRowView], dimension: str, meters: Collection[str]) -> list[Split]:
    """Return the usage of these meters by the values of a dimension. `rows` are by meter and dimension."""
    by_meter: dict[str, dict[str, int]] = {}
    for row in rows:
        if row["meter"] in meters:
            values = by_meter.setdefault(row["meter"], {})
            value = str(row.get(dimension, ""))
            values[value] = values.get(value, 0) + row["value"]
    splits = []
    for meter, values in sorted(by_meter.items()):
        total = sum(values.values())
        usages = [ValueUsage(value, quantity, quantity / (total or 1)) for value, quantity in values.items()]
        usages.sort(key=lambda usage: -usage.quantity)
        splits.append(Split(meter, dimension, usages[:VALUES_MAX], total))
    return splits


@dataclass
class _CostSums:
    used: int = 0
    cost: int = 0
    low: int = 0
    low_cost: int = 0
    high: int = 0
    high_cost: int = 0


def compute_costs(upcoming: UpcomingInvoiceView) -> list[MeterCost]:
    """Return the costs by meter of the upcoming invoice and its projection, highest first."""
    sums: dict[str, _CostSums] = defaultdict(_CostSums)
    for line in _list_usage_lines(upcoming):
        sums[line["meter"]].used += line["quantity"] * line["package"]
        sums[line["meter"]].cost += line["amount"]
    for line in _list_usage_lines(upcoming["projected"]["low"]):
        sums[line["meter"]].low += line["quantity"] * line["package"]
        sums[line["meter"]].low_cost += line["amount"]
    for line in _list_usage_lines(upcoming["projected"]["high"]):
        sums[line["meter"]].high += line["quantity"] * line["package"]
        sums[line["meter"]].high_cost += line["amount"]
    costs = [MeterCost(meter, *astuple(meter_sums)) for meter, meter_sums in sums.items()]
    return sorted(costs, key=lambda cost: (-cost.high_cost, -cost.cost))


def _list_usage_lines(invoice: InvoiceAmountsView | None) -> list[InvoiceLineView]:
    return [] if invoice is None else [line for line in invoice["lines"] if line["kind"] == "usage"]


def compute_meters(
    rows: list[UsageRowView], span: UsageTime, now: float, since: float, totals: Mapping[str, int] | None = None
) -> list[MeterUsage]:
    """Return the most used meters of a time at the Unix second `now`. `rows` are by meter and day.

    Days are shown from the Unix second `since` on. `totals` are the totals of the time, by default sums of rows.
    """
    day_count = int((now - span.first_day) // DAY_SECONDS) + 1
    hidden = int((since - span.first_day) // DAY_SECONDS)
    by_meter: dict[str, list[int]] = {meter: [0] * day_count for meter in totals or ()}
    for row in rows:
        values = by_meter.setdefault(row["meter"], [0] * day_count)
        number = int((parse_time(row["day"]).timestamp() - span.first_day) // DAY_SECONDS)
        if 0 <= number < day_count:
            values[number] += row["value"]
    usages = []
    for meter, values in by_meter.items():
        total = sum(values) if totals is None else totals.get(meter, 0)
        days = [DayUsage(span.first_day + number * DAY_SECONDS, value) for number, value in enumerate(values)][hidden:]
        usages.append(MeterUsage(meter, total, days))
    return sorted(usages, key=lambda usage: -usage.total)[:METERS_MAX]
