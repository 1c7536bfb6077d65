"""What a customer uses of its limits now, of what edges report while the page is open. Pure."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from typing_extensions import TypedDict

REGIONS_MAX = 5
"""Regions of a limit that are shown, those that use most."""


class LiveLimitView(TypedDict):
    """What is used of a limit at an edge, of `GET /v1/customers/CUSTOMER/limits`."""

    limit: str
    scope: str
    route: str
    mode: str
    count: int
    window_s: float
    used: int
    peak: int


class LiveEdgeView(TypedDict):
    """What is used of limits at an edge, as far as it is read here."""

    region: str
    limits: list[LiveLimitView]


class LiveUse(NamedTuple):
    """What is used of a limit at the edge that uses most of it, and the most in each region."""

    limit: LiveLimitView
    part: float
    """The part of the limit that is used, 0.5 for half."""
    peak: int
    regions: Mapping[str, int]
    """What is used by region, most first."""


def compute_live_uses(edges: Iterable[LiveEdgeView]) -> list[LiveUse]:
    """Compute what is used of each limit, those with the largest part used first.

    Edges that share a limit each report what all of them use, and others have it to themselves; so the edge that uses
    most says how near the limit is, and a sum would say nothing.
    """
    limits: dict[tuple[str, str, str], list[tuple[str, LiveLimitView]]] = defaultdict(list)
    for edge in edges:
        for one in edge["limits"]:
            limits[one["limit"], one["scope"], one["route"]].append((edge["region"], one))
    uses = []
    for rows in limits.values():
        fullest = max((one for _, one in rows), key=lambda one: one["used"])
        regions: dict[str, int] = {}
        for region, one in sorted(rows, key=lambda row: (-row[1]["used"], row[0])):
            regions.setdefault(region, one["used"])
        peak = max(one["peak"] for _, one in rows)
        most = dict(list(regions.items())[:REGIONS_MAX])
        uses.append(LiveUse(fullest, fullest["used"] / max(fullest["count"], 1), peak, most))
    return sorted(uses, key=lambda use: (-use.part, use.limit["limit"], use.limit["route"]))
