"""A customer's current use of its limits. Edges report it while the page is open. Pure."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from typing_extensions import TypedDict

REGIONS_MAX = 5
"""Regions shown per limit, the ones with the highest use."""


class LiveLimitView(TypedDict):
    """The use of a limit at an edge, from `GET /v1/customers/CUSTOMER/limits`."""

    limit: str
    scope: str
    route: str
    mode: str
    count: int
    window_s: float
    used: int
    peak: int


class LiveEdgeView(TypedDict):
    """The use of limits at an edge. Only the fields of the API that this page reads."""

    region: str
    limits: list[LiveLimitView]


class LiveUse(NamedTuple):
    """The use of a limit at the edge with the highest use, and the highest use in each region."""

    limit: LiveLimitView
    part: float
    """The used part of the limit, 0.5 for half."""
    peak: int
    regions: Mapping[str, int]
    """The highest use by region, in descending order."""


def compute_live_uses(edges: Iterable[LiveEdgeView]) -> list[LiveUse]:
    """Compute the use of each limit, the largest used part first.

    Edges that share a limit each report the total of all of them. Other edges have the limit to themselves. In both
    cases the highest use shows how near the limit is, and a sum would be meaningless.
    """
    limits: dict[tuple[str, str, str], list[tuple[str, LiveLimitView]]] = defaultdict(list)
    for edge in edges:
        for one in edge["limits"]:
            limits[one["limit"], one["scope"], one["route"]].append((edge["region"], one))
    uses = []
    for rows in limits.values():
        fullest = max((one for _, one in rows), key=lambda row: row["used"])
        regions: dict[str, int] = {}
        for region, one in sorted(rows, key=lambda row: (-row[1]["used"], row[0])):
            regions.setdefault(region, one["used"])
        peak = max(one["peak"] for _, one in rows)
        most = dict(list(regions.items())[:REGIONS_MAX])
        uses.append(LiveUse(fullest, fullest["used"] / max(fullest["count"], 1), peak, most))
    return sorted(uses, key=lambda use: (-use.part, use.limit["limit"], use.limit["route"]))
