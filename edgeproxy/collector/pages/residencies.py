"""The console's page of all residencies, side by side, as far as each has answered."""

from collections.abc import Mapping

from aiohttp import web

from edgeproxy.collector.pages.api import JsonDocument
from edgeproxy.collector.pages.site import Page, Visit

RESIDENCIES = "/console/residencies"
SEVERITIES = ("page", "warn")
"""Severities of alerts that the page counts."""


def list_pages() -> list[Page]:
    """Return the page."""
    return [Page("GET", RESIDENCIES, "operator", show_residencies)]


async def show_residencies(visit: Visit) -> web.Response:
    """Show the residencies, with one table each for traffic, usage and payments."""
    body = await visit.fetch("GET", "/v1/residencies")
    residencies: list[JsonDocument] = body["residencies"]
    answered = [residency for residency in residencies if residency["aggregates"] is not None]
    return visit.render(
        "residencies.html",
        residencies=residencies,
        there=[residency["residency"] for residency in answered],
        severities_shown=SEVERITIES,
        traffic=tabulate(answered, "traffic", "region", "requests"),
        usage=tabulate(answered, "usage", "meter", "units"),
        payments=tabulate(answered, "payments", "currency", "amount"),
    )


def tabulate(residencies: list[JsonDocument], part: str, name: str, value: str) -> dict[str, list[int | None]]:
    """Return the row of each name, with a value per residency, or None if it has none. The empty name comes last."""
    columns: list[Mapping[str, int]] = [
        {row[name]: row[value] for row in residency["aggregates"][part]} for residency in residencies
    ]
    names = sorted({key for column in columns for key in column}, key=lambda key: (key == "", key))
    return {key: [column.get(key) for column in columns] for key in names}
