"""The status of the edge: its phase, its readiness, and the body of `GET /status`."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Literal

import edgeproxy
from edgeproxy.base.build import describe_build
from edgeproxy.config.customers import Flag
from edgeproxy.config.directory import KnownCustomer
from edgeproxy.config.edge.routes import Route
from edgeproxy.config.edge.settings import EdgeSettings
from edgeproxy.config.tiers import Tier
from edgeproxy.edge.counters.file import KINDS
from edgeproxy.edge.directory.directories import Directories
from edgeproxy.edge.limits.route_limits import CONCURRENCY
from edgeproxy.edge.metrics import Series
from edgeproxy.edge.supervisor.accounting import Accounting
from edgeproxy.edge.supervisor.acme import AcmeRenewals
from edgeproxy.edge.supervisor.certificates import Certificates
from edgeproxy.edge.supervisor.exemplars import Exemplar
from edgeproxy.edge.supervisor.issuers import IssuerKeyFetcher
from edgeproxy.edge.supervisor.limit_report import Policy, find_file_customer
from edgeproxy.edge.supervisor.reload import Reloads
from edgeproxy.edge.supervisor.table_reader import TableReader
from edgeproxy.edge.supervisor.traces import Traces
from edgeproxy.edge.supervisor.upstreams import Upstreams
from edgeproxy.edge.supervisor.vitals import Vitals
from edgeproxy.edge.supervisor.workers import Workers
from edgeproxy.edge.sync.coordinator import Coordinator

LOCAL_HUB = {"url": "memory://", "state": "up", "age_s": 0}
"""The hub's status if limits are not shared."""

KEYS_MAX = 100
"""Keys of a customer whose limits are reported to the collector at most; each may have limits of its own."""

Phase = Literal["starting", "serving", "draining"]


class Status:
    """The status of one supervisor and its workers at the moment of a request."""

    def __init__(
        self,
        reloads: Reloads,
        workers: Workers,
        table_reader: TableReader,
        upstreams: Upstreams,
        certificates: Certificates,
        accounting: Accounting,
        directories: Directories,
        traces: Traces,
        issuers: IssuerKeyFetcher,
        acme: AcmeRenewals,
        coordinator: Coordinator | None = None,
    ) -> None:
        self.phase: Phase = "starting"
        self.lacking = 0
        """Columns that are missing for workers to start."""
        self._reloads = reloads
        self._workers = workers
        self._table_reader = table_reader
        self._upstreams = upstreams
        self._certificates = certificates
        self._accounting = accounting
        self._directories = directories
        self._coordinator = coordinator
        self._traces = traces
        self._issuers = issuers
        self._acme = acme
        self.vitals = Vitals(workers, table_reader)

    @property
    def settings(self) -> EdgeSettings:
        """The serving configuration."""
        return self._reloads.serving

    def unready(self) -> str | None:
        """Return the reason why the edge is not ready for requests; None if it is."""
        workers = self._workers
        if self.phase == "draining":
            return "draining"
        if self.phase == "starting":
            return f"starting: {workers.ready} of {workers.places} workers are ready{self._crowded()}"
        return self._directories.describe_lack() if workers.ready else f"none of {workers.places} workers is ready"

    def _crowded(self) -> str:
        """Return the reason for a slow start, if there is one."""
        if not self.lacking:
            return ""
        return f"; {self.lacking} wait until workers of supervisors that were killed have finished and left"

    async def find_customer(self, customer: str) -> KnownCustomer | None:
        """Find a customer in the files, or else in the directory; None if no customer has the name.

        Raises ValueError if the directory's entry cannot be read.
        """
        return find_file_customer(self.settings, customer) or await self._directories.find_customer(customer)

    async def list_policies(self, residency: str, customer: str) -> list[Policy]:
        """List the policies of a customer and their present use, for at most KEYS_MAX keys.

        An empty `residency` is the edge's own. Raises OSError, LookupError and ValueError, also if the residency has no
        such customer.
        """
        # Customers in files belong to the edge's own residency.
        known = None if residency else find_file_customer(self.settings, customer)
        known = known or await self._directories.find_customer(customer, residency)
        if known is None:
            raise LookupError("no such customer is here")
        # The report has lines for each key, and a customer may have thousands.
        known = known._replace(keys=known.keys[:KEYS_MAX])
        return await self._table_reader.limits(self.settings, known, self.directory_flags)

    @property
    def directory_flags(self) -> Mapping[str, Flag]:
        """The flags of the directory, by name."""
        return self._directories.flags

    def list_exemplars(self) -> dict[str, dict[int, Exemplar]]:
        """Return a copy of the exemplars of requests, by route and bucket."""
        return {route: dict(buckets) for route, buckets in self._traces.exemplars.by_route.items()}

    async def series(self) -> list[Series]:
        """Return every metric of the edge: the tables' and the supervisor's own.

        Series that can grow start at zero: if a counter began at one, Prometheus would not see its growth. The
        supervisor holds no column, so its own counters begin at zero with each supervisor.
        """
        settings = self.settings
        return [
            ("edge_build_info", (edgeproxy.__version__, describe_build()), (1,)),
            *(("edge_connections", (side,), (0,)) for side in ("client", "upstream")),
            *(("edge_table_full_total", (table,), (0,)) for table in KINDS),
            *(("edge_usage_counted_total", (meter,), (0,)) for meter in settings.meters),
            *(("edge_upstream_retries_total", (upstream,), (0,)) for upstream in settings.upstreams),
            *(("edge_upstream_stale_total", (upstream,), (0,)) for upstream in settings.upstreams),
            *(("edge_upstream_ejections_total", (upstream,), (0,)) for upstream in settings.upstreams),
            *(
                ("edge_upstream_pending", (name,), (0,))
                for name, upstream in settings.upstreams.items()
                if upstream.breaker
            ),
            *(
                ("edge_rate_limited_total", (name, policy, mode), (0,))
                for name, tier in settings.tiers.items()
                for policy, mode in list_refusing_policies(tier, settings.routes)
            ),
            *(("edge_burst_credits_spent_total", (name,), (0,)) for name, tier in settings.tiers.items()),
            *(("edge_shed_total", (str(priority),), (0,)) for priority in list_priorities(settings)),
            *await self._table_reader.series(),
            *self._upstreams.series(),
            *self._certificates.series(),
            *self._issuers.series(),
            *self._acme.series(),
            *await self._accounting.series(),
            *await self.vitals.series(),
            *(() if self._coordinator is None else self._coordinator.series()),
            *self._directories.series(),
            *self._traces.series(),
            ("edge_worker_restarts_total", (), (self._workers.restarts,)),
            *self._reloads.series(),
        ]

    async def report(self) -> dict[str, object]:
        """Return the body of `GET /status`; moments are Unix seconds."""
        settings = self.settings
        return {
            "region": settings.region,
            "version": edgeproxy.__version__,
            "build": describe_build(),
            "phase": self.phase,
            "config": self._reloads.report(),
            "workers": await self.vitals.report(),
            "upstreams": self._upstreams.report(),
            "tables": self._table_reader.rows(),
            "hub": LOCAL_HUB if self._coordinator is None else self._coordinator.report(),
            "directory": self._directories.report(),
            "usage": await self._accounting.report(),
        }


def list_refusing_policies(tier: Tier, routes: Iterable[Route]) -> Iterator[tuple[str, str]]:
    """Yield name and mode of every policy that may refuse customers of a tier; a name may recur."""
    for limit in (*tier.limits, *(limit for route in routes for limit in route.limits)):
        yield limit.name, limit.mode
    if tier.concurrency is not None:
        yield CONCURRENCY, "enforce"
    for quota in tier.quotas:
        if quota.cap == "hard" and quota.per is not None:
            yield quota.name, "enforce"


def list_priorities(settings: EdgeSettings) -> set[int]:
    """Return the priorities of tiers and of anonymous requests; a customer may have another."""
    return {0, *(tier.priority for tier in settings.tiers.values())}
