"""What a customer used in this month, meter by meter, as pages show it."""

import time
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from edgeproxy.collector.pages import charts
from edgeproxy.collector.pages.charts import Chart
from edgeproxy.collector.pages.languages import parse_time
from edgeproxy.collector.pages.projection import find_month
from edgeproxy.collector.pages.site import Visit

METERS_MAX = 12
"""Meters that are shown, those first that are used most."""
DIMENSIONS_MAX = 4
"""Dimensions by which usage is shown."""
VALUES_MAX = 20
"""Values of a dimension that are shown."""
ROWS_MAX = 1000
"""Rows that are asked for of a dimension."""


class MeterUsage(NamedTuple):
    """The usage of a meter in this month."""

    meter: str
    total: int
    projected: int | None
    """What it comes to by the end of the month; None while that cannot be said."""
    chart: Chart
    days: list[tuple[float, int]]
    """The Unix second at which a day begins, and what was used on it."""


class MeterCost(NamedTuple):
    """What a meter comes to in a period of billing. Amounts are cents."""

    meter: str
    used: int
    cost: int
    projected: int
    projected_cost: int


class Split(NamedTuple):
    """What was used of a meter in this month, by the values of a dimension, those first that are used most."""

    meter: str
    dimension: str
    values: list[tuple[str, int, float]]
    """A value, what was used of it, and its share; an empty value is that of usage without the dimension."""


async def fetch_month(visit: Visit, customer: str) -> list[MeterUsage]:
    """Ask what a customer used."""
    now = time.time()
    month = find_month(now)
    since = month.begins.strftime("%Y-%m-%dT%H:%M:%SZ")
    query = {"customer": customer, "from": since, "by": "meter,day", "limit": str(METERS_MAX * 40)}
    response = await visit.fetch("GET", "/v1/usage", query=query)
    return compute_meters(response["rows"], now)


async def fetch_splits(visit: Visit, customer: str) -> list[Split]:
    """Ask what a customer used in this month by the dimensions of meters."""
    meters = visit.site.settings_now().meters
    names = list(dict.fromkeys(name for meter in meters.values() for name in meter.dimensions))[:DIMENSIONS_MAX]
    if not names:
        return []
    # By all of them in one question: that has few more rows, as most meters have one dimension or none.
    whole = await _fetch_usage(visit, customer, names)
    result = []
    for name in names:
        answer = await _fetch_usage(visit, customer, [name]) if "next" in whole and len(names) > 1 else whole
        of = {meter for meter, one in meters.items() if name in one.dimensions}
        result += compute_splits(answer["rows"], name, of)
    return result


async def _fetch_usage(visit: Visit, customer: str, names: Sequence[str]) -> dict[str, Any]:
    query = {"customer": customer, "by": ",".join(("meter", *names)), "limit": str(ROWS_MAX)}
    answer: dict[str, Any] = await visit.fetch("GET", "/v1/usage", query=query)
    return answer


def compute_splits(rows: list[dict[str, Any]], dimension: str, of: Collection[str]) -> list[Split]:
    """Make of rows, by meter and dimension, what is shown of the meters that have it."""
    by_meter: dict[str, dict[str, int]] = {}
    for row in rows:
        if row["meter"] in of:
            values = by_meter.setdefault(row["meter"], {})
            values[row[dimension]] = values.get(row[dimension], 0) + row["value"]
    result = []
    for meter, values in sorted(by_meter.items()):
        total = sum(values.values()) or 1
        most = sorted(values.items(), key=lambda one: -one[1])[:VALUES_MAX]
        result.append(Split(meter, dimension, [(value, used, used / total) for value, used in most]))
    return result


def compute_costs(upcoming: dict[str, Any]) -> list[MeterCost]:
    """Make the next invoice, with its projection, what it comes to meter by meter; lines are rated already."""
    sums: dict[str, list[int]] = {}
    for place, lines in ((0, upcoming["lines"]), (2, upcoming["projected"]["lines"])):
        for line in lines:
            if line["kind"] == "usage":
                figures = sums.setdefault(line["meter"], [0, 0, 0, 0])
                figures[place] += line["quantity"]
                figures[place + 1] += line["amount"]
    return [MeterCost(meter, *figures) for meter, figures in sorted(sums.items(), key=lambda one: -one[1][3])]


def compute_meters(rows: list[dict[str, Any]], now: float) -> list[MeterUsage]:
    """Make the rows of an answer, by meter and day, what is shown at the Unix second `now`."""
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
