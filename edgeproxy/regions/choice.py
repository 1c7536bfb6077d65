"""The choice of the best region for a client."""

from collections.abc import Collection
from typing import Literal, NamedTuple

from edgeproxy.regions.latencies import Latencies, Medians

Because = Literal["prefer", "network", "country", "default"]


class Choice(NamedTuple):
    """A region, the reason for it, and all regions that may serve the client, the best first."""

    region: str
    because: Because
    order: tuple[str, ...]
    measured: Medians


def choose_region(
    latencies: Latencies,
    default: str,
    now: float,
    *,
    network: str | None = None,
    country: str | None = None,
    prefer: str | None = None,
    allow: Collection[str] | None = None,
) -> Choice:
    """Choose the region of a client: its customer's preferred one, else the nearest by the median of its network, or of
    its country, else the default. Only regions in `allow` are candidates; None: all.

    Regions without measurements come after the others, in the order of the configuration.
    """
    regions = [region for region in latencies.regions if allow is None or region in allow]
    if default in regions:
        regions.sort(key=lambda region: region != default)
    because: Because = "default"
    measured: Medians = {}
    sources: tuple[tuple[Because, Medians], ...] = (
        ("network", latencies.compute_network_medians(network, now) if network is not None else {}),
        ("country", latencies.compute_country_medians(country, now) if country is not None else {}),
    )
    for source, medians in sources:
        measured = {region: medians[region] for region in regions if region in medians}
        if len(measured) >= min(2, len(regions)) > 0:  # One alone is nearer than none.
            because = source
            regions.sort(key=lambda region: measured.get(region, float("inf")))
            break
        measured = {}
    if prefer is not None:
        regions = [prefer, *(region for region in regions if region != prefer)]
        because = "prefer"
    if not regions:  # The customer allows none of these regions.
        regions = sorted(allow or (default,))
    return Choice(regions[0], because, tuple(regions), measured)
