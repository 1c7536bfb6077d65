"""What a customer used in this month, meter by meter, as pages show it."""

import time
from typing import Any, NamedTuple

from edgeproxy.pages import charts
from edgeproxy.pages.charts import Chart
from edgeproxy.pages.languages import moment
from edgeproxy.pages.projection import month_of
from edgeproxy.pages.site import Visit

METERS_MAX = 12
"""Meters that are shown, those first that are used most."""


class MeterUsage(NamedTuple):
    """The usage of a meter in this month."""

    meter: str
    total: int
    projected: int | None
    """What it comes to by the end of the month; None while that cannot be said."""
    chart: Chart
    days: list[tuple[float, int]]
    """The Unix second at which a day begins, and what was used on it."""


async def this_month(visit: Visit, customer: str) -> list[MeterUsage]:
    """Ask what a customer used."""
    now = time.time()
    month = month_of(now)
    since = month.begins.strftime("%Y-%m-%dT%H:%M:%SZ")
    query = {"customer": customer, "from": since, "by": "meter,day", "limit": str(METERS_MAX * 40)}
    found = await visit.ask("GET", "/v1/usage", query=query)
    return meters_of(found["rows"], now)


def meters_of(rows: list[dict[str, Any]], now: float) -> list[MeterUsage]:
    """Make the rows of an answer, by meter and day, what is shown at the Unix second `now`."""
    month = month_of(now)
    begins = month.begins.timestamp()
    passed = int((now - begins) // 86400) + 1
    by_meter: dict[str, list[int]] = {}
    for row in rows:
        values = by_meter.setdefault(row["meter"], [0] * passed)
        place = int((moment(row["day"]).timestamp() - begins) // 86400)
        if 0 <= place < passed:
            values[place] += row["value"]
    made = []
    for meter, values in sorted(by_meter.items(), key=lambda one: -sum(one[1]))[:METERS_MAX]:
        total = sum(values)
        days = [(begins + number * 86400, value) for number, value in enumerate(values)]
        made.append(MeterUsage(meter, total, month.projected(total), charts.bars(values, month.days), days))
    return made
