"""Endpoints as the configuration has them, each with the addresses behind its name."""

from typing import TYPE_CHECKING

from edgeproxy.edge.proxy.load_balancing import compute_tiers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgeproxy.config.edge.upstreams import Endpoint as EndpointSettings
    from edgeproxy.edge.proxy.pool import Endpoint


class ConfiguredEndpoint:
    """An endpoint as configured, and the addresses behind its name."""

    __slots__ = ("endpoints", "settings", "tier")

    def __init__(self, settings: "EndpointSettings", tier: int) -> None:
        self.settings = settings
        self.tier = tier
        self.endpoints: dict[str, Endpoint] = {}


def create_origins(settings: "Sequence[EndpointSettings]", region: str) -> list[ConfiguredEndpoint]:
    """Create the endpoints as configured; `region` is the edge's own."""
    tiers = compute_tiers([endpoint.region for endpoint in settings], region)
    return [ConfiguredEndpoint(endpoint, tier) for endpoint, tier in zip(settings, tiers, strict=True)]
