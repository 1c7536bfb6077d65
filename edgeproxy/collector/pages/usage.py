"""The usage of a customer in this month, as pages show it: by meter, by day and by dimension."""

import time
from collections.abc import Collection, Sequence
from typing import NamedTuple, NotRequired, Required

from typing_extensions import TypedDict

from edgeproxy.collector.pages import charts
from edgeproxy.collector.pages.charts import Chart
from edgeproxy.collector.pages.languages import parse_time
from edgeproxy.collector.pages.projection import find_month
from edgeproxy.collector.pages.site import Visit

METERS_MAX = 12
"""Meters that are shown, the most used ones first."""
DIMENSIONS_MAX = 4
"""Dimensions by which usage is shown."""
VALUES_MAX = 20
"""Values of a dimension that are shown."""
ROWS_MAX = 1000
"""Rows that are fetched of a dimension."""


class UsageRowView(TypedDict, total=False):
    """A row of `GET /v1/usage`, which has a field for each of its dimensions too."""

    meter: Required[str]
    value: Required[int]
    day: str


class UsagePageView(TypedDict):
    """A page of `GET /v1/usage`."""

    rows: list[UsageRowView]
    next: NotRequired[str]


class InvoiceLineView(TypedDict):
    """A line of an invoice of the API, as far as it is read here; the amount is in cents."""

    kind: str
    meter: str
    quantity: int
    amount: int


class InvoiceProjectionView(TypedDict):
    """The projection of an upcoming invoice."""

    lines: list[InvoiceLineView]


class UpcomingInvoiceView(InvoiceProjectionView):
    """The upcoming invoice of the API with its projection, as far as it is read here."""

    projected: InvoiceProjectionView


class MeterUsage(NamedTuple):
    """The usage of a meter in this month."""

    meter: str
    total: int
    projected: int | None
    """The projected usage by the end of the month; None while too little of it is over."""
    chart: Chart
    days: list[tuple[float, int]]
    """The Unix second at which each day begins, and its usage."""


class MeterCost(NamedTuple):
    """The usage and cost of a meter in a period of billing, so far and projected. Costs are cents."""

    meter: str
    used: int
    cost: int
    projected: int
    projected_cost: int


class Split(NamedTuple):
    """The usage of a meter in this month by the values of a dimension, the most used ones first."""

    meter: str
    dimension: str
    values: list[tuple[str, int, float]]
    """Each value with its usage and its share; an empty value stands for usage without the dimension."""


async def fetch_month(visit: Visit, customer: str) -> list[MeterUsage]:
    """Return the usage of a customer in this month, by meter."""
    now = time.time()
    month = find_month(now)
    since = month.begins.strftime("%Y-%m-%dT%H:%M:%SZ")
    query = {"customer": customer, "from": since, "by": "meter,day", "limit": str(METERS_MAX * 40)}
    response = await visit.fetch("GET", "/v1/usage", query=query)
    return compute_meters(response["rows"], now)


async def fetch_splits(visit: Visit, customer: str) -> list[Split]:
    """Return the usage of a customer in this month, by the dimensions of meters."""
    meters = visit.site.settings_now().meters
    names = list(dict.fromkeys(name for meter in meters.values() for name in meter.dimensions))[:DIMENSIONS_MAX]
    if not names:
        return []
    # All dimensions in one query: it has few more rows, as most meters have one dimension or none.
    whole = await _fetch_usage(visit, customer, names)
    result = []
    for name in names:
        answer = await _fetch_usage(visit, customer, [name]) if "next" in whole and len(names) > 1 else whole
        of = {meter for meter, one in meters.items() if name in one.dimensions}
        result += compute_splits(answer["rows"], name, of)
    return result


async def _fetch_usage(visit: Visit, customer: str, names: Sequence[str]) -> UsagePageView:
    query = {"customer": customer, "by": ",".join(("meter", *names)), "limit": str(ROWS_MAX)}
    page: UsagePageView = await visit.fetch("GET", "/v1/usage", query=query)
    return page


def compute_splits(rows: list[UsageRowView], dimension: str, of: Collection[str]) -> list[Split]:
    """Return the usage by a dimension of the meters that have it, of rows by meter and dimension."""
    by_meter: dict[str, dict[str, int]] = {}
    for row in rows:
        if row["meter"] in of:
            values = by_meter.setdefault(row["meter"], {})
            value = str(row.get(dimension, ""))
            values[value] = values.get(value, 0) + row["value"]
    result = []
    for meter, values in sorted(by_meter.items()):
        total = sum(values.values()) or 1
        most = sorted(values.items(), key=lambda one: -one[1])[:VALUES_MAX]
        result.append(Split(meter, dimension, [(value, used, used / total) for value, used in most]))
    return result


def compute_costs(upcoming: UpcomingInvoiceView) -> list[MeterCost]:
    """Return the costs by meter of the upcoming invoice and its projection, the dearest first."""
    sums: dict[str, list[int]] = {}
    for place, lines in ((0, upcoming["lines"]), (2, upcoming["projected"]["lines"])):
        for line in lines:
            if line["kind"] == "usage":
                figures = sums.setdefault(line["meter"], [0, 0, 0, 0])
                figures[place] += line["quantity"]
                figures[place + 1] += line["amount"]
    return [MeterCost(meter, *figures) for meter, figures in sorted(sums.items(), key=lambda one: -one[1][3])]


def compute_meters(rows: list[UsageRowView], now: float) -> list[MeterUsage]:
    """Return the usage by meter at the Unix second `now`, of rows by meter and day."""
    month = find_month(now)
    begins = month.begins.timestamp()
    passed = int((now - begins) // 86400) + 1
    by_meter: dict[str, list[int]] = {}
    for row in rows:
        values = by_meter.setdefault(row["meter"], [0] * passed)
        place = int((parse_time(row["day"]).timestamp() - begins) // 86400)
        if 0 <= place < passed:
            values[place] += row["value"]
    result = []
    for meter, values in sorted(by_meter.items(), key=lambda one: -sum(one[1]))[:METERS_MAX]:
        total = sum(values)
        days = [(begins + number * 86400, value) for number, value in enumerate(values)]
        result.append(MeterUsage(meter, total, month.projected(total), charts.draw_bars(values, month.days), days))
    return result
