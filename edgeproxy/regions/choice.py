"""Which region is the best for a client."""

from collections.abc import Collection
from typing import Literal, NamedTuple

from edgeproxy.regions.latencies import Latencies, Medians

Because = Literal["prefer", "network", "country", "default"]


class Choice(NamedTuple):
    """A region, and by what it was chosen; all that may serve the client, the best first."""

    region: str
    because: Because
    order: tuple[str, ...]
    measured: Medians


def choose(
    latencies: Latencies,
    default: str,
    now: float,
    *,
    network: str | None = None,
    country: str | None = None,
    prefer: str | None = None,
    allow: Collection[str] | None = None,
) -> Choice:
    """Choose for a client: what its customer prefers, else the nearest by its network's median, by its country's, else
    the default. Only regions that the customer allows come into question; None: all.

    Regions that nobody measured come after those that somebody has, in the order in which they are configured.
    """
    regions = [region for region in latencies.regions if allow is None or region in allow]
    if default in regions:
        regions.sort(key=lambda region: region != default)
    because: Because = "default"
    measured: Medians = {}
    by: tuple[tuple[Because, Medians], ...] = (
        ("network", latencies.of_network(network, now) if network is not None else {}),
        ("country", latencies.of_country(country, now) if country is not None else {}),
    )
    for source, medians in by:
        measured = {region: medians[region] for region in regions if region in medians}
        if len(measured) >= min(2, len(regions)) > 0:  # One alone is nearer than none.
            because = source
            regions.sort(key=lambda region: measured.get(region, float("inf")))
            break
        measured = {}
    if prefer is not None:
        regions = [prefer, *(region for region in regions if region != prefer)]
        because = "prefer"
    if not regions:  # The customer allows none of those that are measured: it knows best.
        regions = sorted(allow or (default,))
    return Choice(regions[0], because, tuple(regions), measured)
