"""What operators write in collector.yaml: models like those of `models.py`, of which it takes the parts that both have.

Tiers, meters, customers, keys and flags are as in edge.yaml, so that both include the same files.
"""

from collections.abc import Iterator, Mapping
from typing import Annotated, Literal
from urllib.parse import parse_qs, unquote, urlsplit

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from edgeproxy.config import addresses, hub_settings, parsers, references
from edgeproxy.config.check import Kind
from edgeproxy.config.collector import listeners, pages
from edgeproxy.config.collector.alerts import Alerts, find_alert_faults
from edgeproxy.config.collector.anomalies import Anomalies
from edgeproxy.config.collector.billing import Billing
from edgeproxy.config.collector.catalog import Plan, get_plan_tier
from edgeproxy.config.collector.listeners import CollectorListener, Tls
from edgeproxy.config.collector.operators import Operators
from edgeproxy.config.collector.pages import Pages
from edgeproxy.config.collector.regions import Measured, find_measured_faults
from edgeproxy.config.customers import Customer, Flag, Key
from edgeproxy.config.field_types import File, Moment, Name, Switch
from edgeproxy.config.hub_settings import Hub
from edgeproxy.config.meters import Meter
from edgeproxy.config.nearest import format_suggestion
from edgeproxy.config.networks import Network
from edgeproxy.config.part import Part
from edgeproxy.config.references import Fault
from edgeproxy.config.tiers import Tier
from edgeproxy.config.tokens import AdminToken, read_digests, read_pairs
from edgeproxy.config.tree import Table
from edgeproxy.config.units import DAYS, Whole, format_value, read_quantity, read_text, value_error

A_DATABASE = "sqlite:///var/collector/ledger.db, or postgresql://USER:PASSWORD@HOST:PORT/NAME"
SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
A_KEEP = "days such as 400day, or forever"
DAY_SECONDS = 86400.0
KEEP_DAYS_MIN = 2
"""Days that anything is kept at least: what comes a little late must find what it belongs to."""
ROLES = ("edge", "beacon", "service", "read", "support", "billing", "admin")
A_ROLE = f"write role: {', '.join(ROLES[:-1])} or {ROLES[-1]}, or customer: NAME"


def read_database(value: object) -> str:
    """Read the URL of a database: a file of SQLite, relative to where the collector is started, or PostgreSQL."""
    url = read_text(value, A_DATABASE)
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise value_error(f"{format_value(url)} is not a URL", A_DATABASE) from None
    if parts.scheme == "sqlite" and not parts.netloc:
        if len(parts.path) < 2 or parts.path.endswith("/") or parts.query or not unquote(parts.path).isprintable():
            raise value_error(f"{format_value(url)} names no file", A_DATABASE)
        return url
    if parts.scheme != "postgresql":
        raise value_error(f"{format_value(url)} is not a database", A_DATABASE)
    if len(parts.path) < 2 or not parts.hostname or port == 0:
        raise value_error(f"{format_value(url)} has no host, or no name of a database", A_DATABASE)
    options = parse_qs(parts.query, keep_blank_values=True)
    for name, values in options.items():
        if name != "sslmode" or values[0] not in SSL_MODES:
            raise value_error(f"has {format_value(name)}", f"after a ? there may be sslmode={'|'.join(SSL_MODES)}")
    return url


def read_retention(value: object) -> float | None:
    """Read a time of whole days, in seconds: `400day`; None: for ever."""
    if value is None or isinstance(value, float):
        return value
    if read_text(value, A_KEEP) == "forever":
        return None
    days = read_quantity(value, DAYS, A_KEEP)
    if not days.is_integer() or not KEEP_DAYS_MIN <= days <= 36500:
        raise value_error(
            f"{format_value(str(value))} is no whole number of days from {KEEP_DAYS_MIN} to 36500", A_KEEP
        )
    return days * DAY_SECONDS


PerMinute = Annotated[int, BeforeValidator(Whole(1, 1_000_000))]
RetentionTime = Annotated[float | None, BeforeValidator(read_retention)]


class Token(Part):
    """Who may ask the collector what. Holders send `Authorization: Bearer TOKEN`."""

    name: Name | None = None
    """What edges are bound to, and what the audit log says; by default `token-` and eight digits of the first hash."""
    sha256: Annotated[tuple[str, ...], BeforeValidator(read_digests)]
    """The SHA-256 of the token in hex, or a list of several while one secret replaces another."""
    role: Literal["edge", "beacon", "service", "read", "support", "billing", "admin"] | None = None
    """edge: ships usage; beacon: reports latencies; service: reports its own; read: reads everything; support: also
    helps customers; billing: also what money is about; admin: reads and changes everything."""
    customer: Name | None = None
    """The customer whose usage may be read, instead of a role."""
    edge: Name | None = None
    """The only edge that may ship with it; by default any."""
    region: Name | None = None
    """The only region whose edges may ship with it; by default any."""
    expires: Moment | None = None
    """When the token ends: a date (its beginning in UTC), or a time as in RFC 3339."""
    sensitive: Switch = False
    """Whether it may do what people need a second factor for, such as to delete a customer."""

    @property
    def label(self) -> str:
        """The token's name, or what stands for one."""
        return self.name or f"token-{self.sha256[0][:8]}"


class Published(Part):
    """How edges are told of customers and keys."""

    key: File
    """The private key that signs, as `edgeproxy directory keygen` writes it."""
    hub: Annotated[Hub, BeforeValidator(hub_settings.read_hub)] | None = None
    """A hub to which the directory is copied, for edges with `directory: {from: hub}`: redis://HOST:PORT."""


class Retention(Part):
    """How long what is counted is kept how finely; days are kept for ever."""

    minutes: RetentionTime = 400 * DAY_SECONDS
    """What was used in each minute; PostgreSQL drops whole months."""
    hours: RetentionTime = None
    """What was used in each hour; by default for ever, like days."""
    batches: RetentionTime = 100 * DAY_SECONDS
    """What edges have shipped, by which `edgeproxy verify` proves the ledger; then what it came to by day."""
    deleted: RetentionTime = 30 * DAY_SECONDS
    """What is known of a customer whose deletion has begun, but the name, the id, the tier and what was counted."""
    webhooks: RetentionTime = 60 * DAY_SECONDS
    """Events of Stripe's with their payload, from when they came, unless they are still to be applied."""


class Edges(Part):
    """How many edges there may be."""

    per_token: Annotated[int, BeforeValidator(Whole(1, 1_000_000))] = 500
    """Edges that may be bound to one token, retired ones not counted; batches of further ones are answered 429."""


class ChangesPerMinute(Part):
    """How many changes a caller may make in a minute, by what each costs: a transaction, an entry of the audit log, and
    a version of the directory for every edge."""

    customers: PerMinute = 60
    """A customer's token, or a contact of a customer who signed in."""
    operators: PerMinute = 1200
    """A token of the role support, billing or admin, or a person who has one."""


class Metrics(Part):
    """Who may read `GET /metrics`."""

    tokens: Annotated[tuple[AdminToken, ...], BeforeValidator(read_pairs)] = ()
    """Holders of these; without them everybody who reaches the collector."""


class CollectorFile(Part):
    """What operators write in collector.yaml and the files that it includes."""

    listen: Annotated[
        tuple[Annotated[CollectorListener, BeforeValidator(parsers.read_listener)], ...],
        BeforeValidator(parsers.read_one_or_more),
    ] = (CollectorListener(address=addresses.Address("127.0.0.1", 9100)),)
    """Where edges, services, readers and browsers connect: HOST:PORT, which serves everything, or {address, serve,
    allow, tls}, or a list of these."""
    tls: Tls | None = None
    """The certificate that they are shown at listeners that say nothing else; without it they connect in the clear."""
    trusted_proxies: tuple[Network, ...] = ()
    """Networks whose `X-Forwarded-For` says who a client is, for limits and the audit log."""
    changes_per_minute: ChangesPerMinute = ChangesPerMinute()
    """How many changes a caller may make in a minute."""
    edges: Edges = Edges()
    """How many edges a token may introduce."""
    metrics: Metrics = Metrics()
    """Who may read `GET /metrics`; by default everybody who reaches the collector."""
    database: Annotated[str, BeforeValidator(read_database)] = "sqlite:///var/collector/ledger.db"
    """Where the ledger is: sqlite:///FILE, or postgresql://USER:PASSWORD@HOST:PORT/NAME."""
    retention: Retention = Retention()
    """How long what is counted is kept how finely."""
    tokens: Annotated[tuple[Token, ...], Field(min_length=1)]
    """Who may ask what."""
    directory: Published | None = None
    """How edges are told of customers and keys; by default they are not."""
    operators: Operators | None = None
    """People who sign in at an issuer of OpenID Connect; by default nobody."""
    meters: dict[Name, Meter] = Field(default_factory=lambda: {"requests": Meter(count="requests")})
    """What edges count; others are kept too, and flagged."""
    tiers: dict[Name, Tier] = Field(default_factory=dict)
    """Plans by name."""
    customers: dict[Name, Customer] = Field(default_factory=dict)
    """Who pays, by name; others' usage is kept too, and flagged."""
    keys: tuple[Key, ...] = ()
    """The keys that customers send to edges."""
    flags: dict[Name, Flag] = Field(default_factory=dict)
    """Who sees routes that are not for everybody, by name."""
    regions: Measured | None = None
    """The regions between which clients are sent to the nearest; by default nobody is."""
    alerts: Alerts = Alerts()
    """What somebody should hear of, and how; by default the log says it."""
    anomalies: Anomalies = Anomalies()
    """When usage is not as usual, and what is done about it; by default there is an alert."""
    billing: Billing | None = None
    """What is sold, who is charged for it, and how; by default nothing is sold."""
    pages: Pages | None = None
    """Pages that people look at: console, portal, status; by default there are none."""


class Settings(CollectorFile):
    """A configuration that passed every check."""

    plans: dict[str, Plan] = {}
    """What is sold, by version: what the file says that `billing.plans` names."""
    sha256: str
    """Over the bytes of all files, in the order in which they were read, in hex."""


def find_faults(tree: Table) -> Iterator[Fault]:
    """Find contradictions between the parts of a collector.yaml."""
    yield from references.find_faults(tree)
    yield from listeners.find_faults(tree)
    yield from _find_retention_faults(tree)
    yield from find_measured_faults(tree)
    yield from find_alert_faults(tree)
    yield from pages.find_faults(tree)
    yield from references.find_token_faults(references.list_members(tree, "tokens"))
    for path, token in references.list_members(tree, "tokens"):
        given = token.get("sha256")
        if isinstance(given, list) and len(given) > 1 and token.get("name") is None:
            yield Fault(
                (*path, "sha256"), "has several secrets, and the token no name", "write name: what edges are bound to"
            )
        if "sensitive" in token and token.get("name") is None:
            yield Fault((*path, "sensitive"), "needs the token's name", "write name: what the audit log calls it")
        if ("role" in token) == ("customer" in token):
            what = "has a role and a customer" if "role" in token else "has neither a role nor a customer"
            yield Fault(path, what, A_ROLE)
        for bound in ("edge", "region"):
            if bound in token and token.get("role") != "edge":
                yield Fault((*path, bound), "binds those who ship usage", "write it beside role: edge, or leave it out")


ADDABLE = ("sum", "average")
"""What of a meter is, over all values of a dimension, the sum of what it is for each."""
PERIOD_SECONDS_MAX = 31 * DAY_SECONDS
METERS_SECONDS = 62 * DAY_SECONDS
"""Minutes are kept so long at least with `collection:

meters`: they are compared for 60 days (collector/billing/jobs/meter_export.py).
"""


def find_plan_faults(written: CollectorFile, plans: Mapping[str, Plan]) -> Iterator[Fault]:
    """Find plans whose tier is not there, or whose prices come to nothing that adds up, and usage that is kept for less
    long than invoices need. A collector need not know tiers: one that knows none leaves them to edges."""
    billing, minutes = written.billing, written.retention.minutes
    needed, what = 0.0, "is shorter than invoices need: a month and the freeze after it"
    if billing is not None and billing.mode != "off":
        needed = PERIOD_SECONDS_MAX + billing.freeze
        if billing.collection == "meters":
            needed = METERS_SECONDS
            what = "is shorter than the time for which the ledger is compared with what Stripe was told"
    if minutes is not None and minutes < needed:
        days = -int(-needed // DAY_SECONDS)
        yield Fault(("retention", "minutes"), what, f"keep minutes for {days}day or longer")
    for version, plan in plans.items():
        for name, price in plan.meters.items():
            if name not in written.meters and "meters" in written.model_fields_set:
                hint = format_suggestion(name, written.meters, "define it in meters, or name another one in the plan")
                yield Fault(("billing", "plans"), f"has {version}, whose meter {name} is not there", hint)
            meter = written.meters.get(name)
            aggregate = "sum" if meter is None else meter.aggregate
            is_billed = price.price is not None or price.tiers
            if is_billed and aggregate == "sum" and meter is not None and meter.count == "holdings":
                what = f"has {version}, with a price of {name}, which are places that nobody adds up"
                yield Fault(("billing", "plans"), what, f"write aggregate: max or average beside the count of {name}")
            if price.by is not None and aggregate not in ADDABLE:
                by = price.by.dimension
                what = f"has {version}, with prices of {name} by {by}, whose {aggregate} does not add up"
                yield Fault(("billing", "plans"), what, "give it one price, or count a sum")
        tier = get_plan_tier(version, plan)
        if written.tiers and tier not in written.tiers:
            hint = format_suggestion(tier, written.tiers, "define it in tiers, or name another one in the plan")
            yield Fault(("billing", "plans"), f"has {version}, whose tier {tier} is not there", hint)
        split = [meter for meter, price in plan.meters.items() if price.by is not None]
        if split and written.billing is not None and written.billing.collection == "meters":
            what = f"has {version}, whose price of {split[0]} is by dimension, of which Stripe's meters know nothing"
            yield Fault(("billing", "plans"), what, "write collection: invoice_items")


def _find_retention_faults(tree: Table) -> Iterator[Fault]:
    """Find hours that are dropped before the minutes of which they are left."""
    given = tree.get("retention")
    if not isinstance(given, Table):
        return
    try:
        minutes, hours = (
            read_retention(given.get(name, Retention.model_fields[name].default)) for name in ("minutes", "hours")
        )
    except PydanticCustomError:
        return  # Told of already.
    if hours is not None and (minutes is None or hours < minutes):
        yield Fault(("retention", "hours"), "is shorter than minutes", "keep hours as long or longer")


KIND = Kind(CollectorFile, find_faults)


def is_collector_file(tree: Table) -> bool:
    """Whether a file that begins so is a collector.yaml, and no edge.yaml."""
    return bool(tree.keys() & {"database", "tokens", "billing"}) and not tree.keys() & {"upstreams", "routes"}
