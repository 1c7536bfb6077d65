"""A group of endpoints: its tag in the description, its table, its handlers, and their resources."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import NamedTuple

from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.base.json_values import JsonObject
from edgeproxy.collector.accounts import customers
from edgeproxy.collector.accounts.audit import Tallies
from edgeproxy.collector.accounts.last_used import LastUsedDays
from edgeproxy.collector.api.endpoint import AnyCall, Endpoint, list_endpoints
from edgeproxy.collector.api.request_limits import RequestRate
from edgeproxy.collector.billing.stripe.client import Stripe
from edgeproxy.collector.billing.webhooks.processor import Processor
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.periodic import JobLog
from edgeproxy.collector.directory.publisher import Publisher
from edgeproxy.collector.encryption.keyring import Keyring
from edgeproxy.collector.events.event_writer import EventWriter
from edgeproxy.collector.jobs.quotas import QuotaMonitor
from edgeproxy.collector.ledger.batch_writer import BatchWriter
from edgeproxy.collector.ledger.known_names import KnownNames
from edgeproxy.collector.metrics import Metrics
from edgeproxy.config.collector.settings import CollectorSettings


@dataclass
class Resources:
    """The queues and services of a collector for handlers. The settings are those of the last reload."""

    database: Database
    metrics: Metrics
    settings: CollectorSettings
    names: KnownNames
    batches: BatchWriter
    events: EventWriter
    quotas: QuotaMonitor
    publisher: Publisher | None = None
    """The publisher of the customer directory; None if the collector publishes none."""
    stripe: Stripe | None = None
    """The Stripe client; None if billing is off."""
    processor: Processor | None = None
    """The processor of Stripe's events; None if billing is off."""
    webhook_secrets: tuple[str, ...] = ()
    """The secrets that may sign Stripe's events, as of the last reload."""
    job_log: JobLog = field(default_factory=JobLog)
    """The jobs of this collector."""
    keyring: Keyring | None = None
    """The keys of encrypted columns; None if nothing is encrypted."""
    unready: str | None = "starting"
    """The reason why the collector is not ready; None if it is."""
    last_used: LastUsedDays = field(init=False)
    """Days of the last use of keys. The collector writes them at intervals."""
    allocation_changes: Tallies = field(init=False)
    """Counts of allocations and releases for the audit log. The collector writes them at intervals."""

    def set_publisher(self, publisher: Publisher | None) -> None:
        """Set the publisher of the directory, also after a reload."""
        self.publisher = publisher

    def __post_init__(self) -> None:
        """Create the in-memory collections."""
        self.last_used = LastUsedDays(self.database)
        self.allocation_changes = Tallies(self.database, "holdings.change")


class Handlers:
    """The base class of a group's handlers."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._database = resources.database
        self._metrics = resources.metrics
        self.apply_settings(resources.settings)

    @property
    def _settings(self) -> CollectorSettings:
        """The settings of the last reload."""
        return self._resources.settings

    def apply_settings(self, settings: CollectorSettings) -> None:
        """Derive values that each request needs from new settings."""

    def check(self, call: AnyCall) -> None:
        """Raise an error for a call that no endpoint of the group can answer, before a transaction begins."""

    async def close(self) -> None:
        """Stop background tasks."""


class PathParameter(NamedTuple):
    """A parameter of paths."""

    description: str
    schema: JsonObject = {"type": "string", "minLength": 1}  # noqa: RUF012 - never changed
    find_owner: Callable[[AsyncConnection, str], Awaitable[str | None]] | None = None
    """Returns the customer that owns the named object. A customer's token may only name its own objects."""


NUMBER_SCHEMA: JsonObject = {"type": "string", "pattern": "^[1-9][0-9]{0,14}$"}
CUSTOMER = PathParameter("The customer, by id or name, such as acme.", find_owner=customers.find_name)


@dataclass(frozen=True, slots=True)
class Group:
    """Endpoints of one domain: the decorated methods of a class. The description shows them under one tag."""

    name: str
    """The tag."""
    description: str
    handlers: type[Handlers]
    _: KW_ONLY
    roles: frozenset[str] = frozenset()
    """The roles of endpoints that state none."""
    rate: RequestRate | None = None
    """The rate limit of endpoints that state none."""
    errors: Mapping[int, str] = field(default_factory=dict)
    """Error statuses of all endpoints, with their meanings. Those of an endpoint and of its change go before."""
    parameters: Mapping[str, PathParameter] = field(default_factory=dict)
    """The parameters of its paths, by name. Each group has `customer`."""
    endpoints: tuple[Endpoint, ...] = field(init=False)
    """The endpoints, in the order of their handlers."""

    def __post_init__(self) -> None:
        """Collect the endpoints."""
        declared = list_endpoints(self.handlers)
        complete = tuple(endpoint.complete(self.name, self.roles, self.rate, self.errors) for endpoint in declared)
        object.__setattr__(self, "endpoints", complete)
        object.__setattr__(self, "parameters", {"customer": CUSTOMER, **self.parameters})
