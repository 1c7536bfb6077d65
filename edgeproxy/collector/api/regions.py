"""The best region for a client, from clients' measurements."""

import ipaddress
import time
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

from edgeproxy.base.addresses import parse_ip
from edgeproxy.collector.accounts import documents
from edgeproxy.collector.api.endpoint import BEACON, EDGE, READERS, Call, Nothing, Query, get, post
from edgeproxy.collector.api.group import Group, Handlers, Resources
from edgeproxy.collector.api.responses import ProblemError, Result
from edgeproxy.collector.problems import account_codes, request_codes
from edgeproxy.config.collector.regions import REGIONS_MAX, Measured
from edgeproxy.config.collector.settings import CollectorSettings
from edgeproxy.config.customers import Regions
from edgeproxy.config.field_types import Name
from edgeproxy.regions.choice import Because, choose_region
from edgeproxy.regions.latencies import MS_MAX, Latencies, Report
from edgeproxy.regions.networks import get_network

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
    """The country of the client (ISO 3166-1 alpha-2), for example DE."""
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
    """The country of the client (ISO 3166-1 alpha-2), for example DE."""
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


class RegionHandlers(Handlers):
    """Handlers of regions. Measurements are only in memory."""

    def __init__(self, resources: Resources) -> None:
        self._latencies: Latencies | None = None
        super().__init__(resources)

    def apply_settings(self, settings: CollectorSettings) -> None:
        """Choose between the regions of these settings. Measurements are kept unless the regions have changed."""
        names = None if settings.regions is None else settings.regions.names
        if names is None:
            self._latencies = None
        elif self._latencies is None or self._latencies.regions != names:
            self._latencies = Latencies(names)
        self._metrics.region_networks.set(0 if self._latencies is None else len(self._latencies))

    def _get_regions(self) -> tuple[Measured, Latencies]:
        if self._settings.regions is None or self._latencies is None:
            raise ProblemError(request_codes.NOT_CONFIGURED, "regions are not configured at this collector")
        return self._settings.regions, self._latencies

    @post(
        "/v1/regions/reports",
        roles=BEACON,
        example={
            "reports": [{"network": "192.0.2.0/24", "voter": "a1", "measured": {"eu-west": 12.5, "us-east": 90.0}}]
        },
        errors={404: "No regions are configured."},
    )
    async def ingest_reports(self, call: Call[Query, RegionReports]) -> RegionReportsResult:
        """Ingest the round trips that clients have measured to each region."""
        _, latencies = self._get_regions()
        now = time.time()
        reports = [
            Report(report.network, report.voter, report.measured, report.country) for report in call.body.reports
        ]
        counted = sum([latencies.add(report, now) for report in reports])
        self._metrics.region_reports.labels("taken").inc(counted)
        self._metrics.region_reports.labels("ignored").inc(len(reports) - counted)
        self._metrics.region_networks.set(len(latencies))
        return {"taken": counted}

    @get(
        "/v1/regions/best",
        roles=EDGE | BEACON | READERS,
        errors={404: "No regions are configured, or the customer does not exist."},
    )
    async def find_best_region(self, call: Call[BestRegionQuery, Nothing]) -> Result[BestRegion]:
        """Find the best region for a client."""
        regions, latencies = self._get_regions()
        query = call.query
        network = None if query.address is None else parse_network(query.address)
        preferences = Regions() if query.customer is None else await self._get_preferences(query.customer)
        choice = choose_region(
            latencies,
            regions.fallback,
            time.time(),
            network=network,
            country=query.country,
            prefer=preferences.prefer,
            allow=preferences.allow,
        )
        measured = {region: round(ms, 1) for region, ms in choice.measured.items()}
        response: BestRegion = {
            "region": choice.region,
            "because": choice.because,
            "order": list(choice.order),
            "measured": measured,
            "network": network,
        }
        return Result(response, headers={"Cache-Control": "private, max-age=60"})

    async def _get_preferences(self, name: str) -> Regions:
        """Return a customer's regions. As at edges, customers in the file precede customers in the database."""
        customer = self._settings.customers.get(name)
        if customer is None:
            async with self._database.reading() as connection:
                customer = await documents.find_customer(connection, name)
        if customer is None:
            raise ProblemError(account_codes.CUSTOMER_NOT_FOUND, f"there is no customer {name}")
        return customer.regions or Regions()


def parse_network(text: str) -> str:
    """Return the network of an address, or of a network as DNS servers receive it. Raises ProblemError."""
    address = parse_ip(text.partition("/")[0])
    try:
        if address is None:
            raise ValueError
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise ProblemError(
            request_codes.QUERY_INVALID, f"address: {text!r} is neither an address nor a network"
        ) from None
    return get_network(address)


GROUP = Group("regions", "The best region for a client.", RegionHandlers)
