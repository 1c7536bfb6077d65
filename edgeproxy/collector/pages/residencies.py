"""The console's page of all residencies: the sums of each beside each other, as far as each could be asked."""

from collections.abc import Mapping

from aiohttp import web

from edgeproxy.collector.pages.api import JsonDocument
from edgeproxy.collector.pages.site import Page, Visit

RESIDENCIES = "/console/residencies"
SEVERITIES = ("page", "warn")
"""The severities of alerts that are counted on the page."""


def list_pages() -> list[Page]:
    """Return the page."""
    return [Page("GET", RESIDENCIES, "operator", show_residencies)]


async def show_residencies(visit: Visit) -> web.Response:
    """Show the residencies, and their traffic, usage and payments as one table each."""
    body = await visit.fetch("GET", "/v1/residencies")
    residencies: list[JsonDocument] = body["residencies"]
    there = [one for one in residencies if one["aggregates"] is not None]
    return visit.render(
        "residencies.html",
        residencies=residencies,
        there=[one["residency"] for one in there],
        severities_shown=SEVERITIES,
        traffic=tabulate(there, "traffic", "region", "requests"),
        usage=tabulate(there, "usage", "meter", "units"),
        payments=tabulate(there, "payments", "currency", "amount"),
    )


def tabulate(residencies: list[JsonDocument], part: str, name: str, value: str) -> dict[str, list[int | None]]:
    """Return the values of a part of all sums by name, one for each residency; None where it has none. What has no
    name comes last."""
    columns: list[Mapping[str, int]] = [
        {row[name]: row[value] for row in one["aggregates"][part]} for one in residencies
    ]
    names = sorted({key for column in columns for key in column}, key=lambda key: (key == "", key))
    return {key: [column.get(key) for column in columns] for key in names}
