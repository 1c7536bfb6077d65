"""Which region is nearest to whom."""

import ipaddress
import time

from aiohttp import web

from edgeproxy.base.addresses import parse_ip
from edgeproxy.collector.accounts import documents
from edgeproxy.collector.api.endpoint import Call, Nothing, Query
from edgeproxy.collector.api.ledger_models import BestRegionQuery, RegionReports
from edgeproxy.collector.api.responses import ProblemError, answer
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.metrics import Metrics
from edgeproxy.config.collector.regions import Measured
from edgeproxy.config.collector.settings import CollectorSettings
from edgeproxy.config.customers import Regions
from edgeproxy.regions.choice import choose
from edgeproxy.regions.latencies import Latencies, Report
from edgeproxy.regions.networks import network_of


class RegionHandlers:
    """Takes what clients have measured, and says where they had best go. All of it is in memory."""

    def __init__(self, database: Database, settings: CollectorSettings, metrics: Metrics) -> None:
        self._database = database
        self._metrics = metrics
        self._latencies: Latencies | None = None
        self.use(settings)

    def use(self, settings: CollectorSettings) -> None:
        """Choose between these settings' regions; what is known is kept, unless they are others than before."""
        self._settings = settings
        names = None if settings.regions is None else settings.regions.names
        if names is None:
            self._latencies = None
        elif self._latencies is None or self._latencies.regions != names:
            self._latencies = Latencies(names)
        self._metrics.region_networks.set(0 if self._latencies is None else len(self._latencies))

    def _measured(self) -> tuple[Measured, Latencies]:
        if self._settings.regions is None or self._latencies is None:
            raise ProblemError(404, "regions are not configured at this collector")
        return self._settings.regions, self._latencies

    async def take(self, call: Call[Query, RegionReports]) -> web.Response:
        """Count reports of clients, which a beacon has checked."""
        _, latencies = self._measured()
        now = time.time()
        made = [Report(one.network, one.voter, one.measured, one.country) for one in call.body.reports]
        taken = sum([latencies.add(report, now) for report in made])
        self._metrics.region_reports.labels("taken").inc(taken)
        self._metrics.region_reports.labels("ignored").inc(len(made) - taken)
        self._metrics.region_networks.set(len(latencies))
        return answer(200, {"taken": taken})

    async def best(self, call: Call[BestRegionQuery, Nothing]) -> web.Response:
        """Say which region is the best for a client, and why."""
        regions, latencies = self._measured()
        query = call.query
        network = None if query.address is None else network_named(query.address)
        wish = Regions() if query.customer is None else await self._wish(query.customer)
        choice = choose(
            latencies,
            regions.fallback,
            time.time(),
            network=network,
            country=query.country,
            prefer=wish.prefer,
            allow=wish.allow,
        )
        measured = {region: round(ms, 1) for region, ms in choice.measured.items()}
        response = {"region": choice.region, "because": choice.because, "order": choice.order, "measured": measured}
        return answer(200, response | {"network": network}, {"Cache-Control": "private, max-age=60"})

    async def _wish(self, name: str) -> Regions:
        """Return where a customer is served: that of the files wins, as it does at edges."""
        customer = self._settings.customers.get(name)
        if customer is None:
            async with self._database.reading() as connection:
                customer = await documents.find_customer(connection, name)
        if customer is None:
            raise ProblemError(404, f"there is no customer {name}")
        return customer.regions or Regions()


def network_named(written: str) -> str:
    """Return the network of an address, or of a network such as DNS servers are told of; raises ProblemError."""
    address = parse_ip(written.partition("/")[0])
    try:
        if address is None:
            raise ValueError
        ipaddress.ip_network(written, strict=False)
    except ValueError:
        raise ProblemError(400, f"address: {written!r} is neither an address nor a network") from None
    return network_of(address)
