"""A group of endpoints: its tag in the description, its table, its handlers, and what these work with."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypeAlias, TypeVar

from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.base.json_values import JsonObject
from edgeproxy.collector.accounts import customers
from edgeproxy.collector.accounts.audit import Tallies
from edgeproxy.collector.accounts.last_used import LastUsedDays
from edgeproxy.collector.api.endpoint import Endpoint
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
    """The queues and services of one collector that handlers use. The settings are those of the last reload."""

    database: Database
    metrics: Metrics
    settings: CollectorSettings
    names: KnownNames
    batches: BatchWriter
    events: EventWriter
    quotas: QuotaMonitor
    publisher: Publisher | None = None
    """The publisher of the customer directory; None where the collector publishes none."""
    stripe: Stripe | None = None
    """The client of Stripe; None where nobody is charged."""
    processor: Processor | None = None
    """The processor of Stripe's events; None where nobody is charged."""
    job_log: JobLog = field(default_factory=JobLog)
    """The jobs of this collector."""
    keyring: Keyring | None = None
    """The keys of encrypted columns; None where nothing is encrypted."""
    unready: str | None = "starting"
    """The reason why the collector does not serve; None where it does."""
    last_used: LastUsedDays = field(init=False)
    """The days on which keys were last used; the collector writes them now and then."""
    allocation_changes: Tallies = field(init=False)
    """Counts of allocations and releases for the audit log; the collector writes them now and then."""

    def set_publisher(self, publisher: Publisher | None) -> None:
        """Set the publisher of the directory, after a reload too."""
        self.publisher = publisher

    def __post_init__(self) -> None:
        """Create what is gathered in memory."""
        self.last_used = LastUsedDays(self.database)
        self.allocation_changes = Tallies(self.database, "holdings.change")


class Handlers:
    """The handlers of a group: the base of each."""

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
        """Derive from new settings what is needed at each request."""

    async def close(self) -> None:
        """Stop tasks in the background."""


class PathParameter(NamedTuple):
    """A parameter of paths."""

    description: str
    schema: JsonObject = {"type": "string", "minLength": 1}  # noqa: RUF012 - never changed
    find_owner: Callable[[AsyncConnection, str], Awaitable[str | None]] | None = None
    """Returns the customer that owns the named thing, to which a customer's token is held."""


NUMBER_SCHEMA: JsonObject = {"type": "string", "pattern": "^[1-9][0-9]{0,14}$"}
CUSTOMER = PathParameter("The customer, by id or name, such as acme.", find_owner=customers.find_name)

HandlersT = TypeVar("HandlersT", bound=Handlers)


@dataclass(frozen=True, slots=True)
class Group(Generic[HandlersT]):
    """Endpoints of one domain, which the description shows under one tag."""

    name: str
    """The tag."""
    description: str
    handlers: Callable[[Resources], HandlersT]
    endpoints: tuple[Endpoint[HandlersT, Any, Any], ...]
    parameters: Mapping[str, PathParameter] = field(default_factory=dict)
    """The parameters of its paths, by name."""


AnyGroup: TypeAlias = Group[Any]
