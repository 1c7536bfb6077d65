"""Round trips that clients measured, and the best region for one."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

from edgeproxy.collector.api.endpoint import Query
from edgeproxy.config.collector.regions import REGIONS_MAX
from edgeproxy.config.field_types import Name
from edgeproxy.regions.choice import Because
from edgeproxy.regions.latencies import MS_MAX

REPORTS_MAX = 500
"""Reports that come at once."""
Milliseconds = Annotated[float, Field(strict=True, gt=0, le=MS_MAX)]
Short = Annotated[str, Field(min_length=1, max_length=64, pattern="^[!-~]+$")]
CountryCode = Annotated[str, Field(pattern="^[A-Z]{2}$")]


class RegionReport(BaseModel):
    """The round trips that one client has measured, in milliseconds by region."""

    model_config = ConfigDict(extra="forbid")

    network: Short
    """The network of the client: 192.0.2.0/24 or 2001:db8:1::/48."""
    voter: Short
    """An id of the client within its network, so that each client counts once. It is not an address."""
    country: CountryCode | None = None
    """The country of the client (ISO 3166-1 alpha-2), such as DE."""
    measured: Annotated[dict[Name, Milliseconds], Field(min_length=1, max_length=REGIONS_MAX)]
    """The round trip to each region, in milliseconds."""


class RegionReports(BaseModel):
    """The measurements of several clients."""

    model_config = ConfigDict(extra="forbid")

    reports: Annotated[list[RegionReport], Field(max_length=REPORTS_MAX)]
    """The reports, one for each client."""


class RegionReportsResult(TypedDict):
    """The number of reports that count. The others are about regions that are not configured."""

    taken: int
    """The number of reports that count. The others are about regions that are not configured."""


class BestRegionQuery(Query):
    """The client's address or network, its country if known, and the customer if it prefers regions."""

    address: Short | None = None
    """The address of the client, or its network."""
    country: CountryCode | None = None
    """The country of the client (ISO 3166-1 alpha-2), such as DE."""
    customer: Name | None = None
    """The customer whose preferred and allowed regions apply, by name."""


class BestRegion(TypedDict):
    """The best region, the reason for the choice (prefer, network, country or default), and all regions in order."""

    region: str
    """The best region, by name."""
    because: Because
    """The reason for the choice: `prefer`, `network`, `country` or `default`."""
    order: list[str]
    """All regions, best first."""
    measured: dict[str, float]
    """The round trip to each region, in milliseconds, if known."""
    network: str | None
    """The network that was looked up; null if no address was given."""
