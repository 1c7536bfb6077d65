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
from edgeproxy.config.field_types import File, Moment, Name, Network, Switch
from edgeproxy.config.forms import build_text, written
from edgeproxy.config.hub_settings import Hub
from edgeproxy.config.meters import Meter
from edgeproxy.config.nearest import format_suggestion
from edgeproxy.config.part import FieldMark, Part
from edgeproxy.config.references import Fault
from edgeproxy.config.tiers import Tier
from edgeproxy.config.tokens import AdminToken, read_digests, read_pairs
from edgeproxy.config.tree import Table
from edgeproxy.config.units import (
    DAY_SECONDS,
    TIME_PATTERN,
    Days,
    Whole,
    format_seconds,
    format_value,
    read_text,
    value_error,
)

A_DATABASE = "sqlite:///var/collector/ledger.db, or postgresql://USER:PASSWORD@HOST:PORT/NAME"
SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
KEEP_DAYS_MIN = 2
"""Days that anything is kept at least: what comes a little late must find what it belongs to."""
ROLES = ("edge", "beacon", "service", "read", "support", "billing", "admin")
A_ROLE = f"write role: {', '.join(ROLES[:-1])} or {ROLES[-1]}, or customer: NAME"


@written(
    build_text(
        "database URL",
        r"sqlite:///.*[^/]|postgresql://.+",
        "sqlite:///var/collector/ledger.db",
        "postgresql://USER:PASSWORD@HOST/NAME",
    )
)
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


retention_days = Days(KEEP_DAYS_MIN, 36500, also="forever, or ")


@written(
    build_text("days or `forever`", f"forever|{TIME_PATTERN}", "400day", "forever"),
    lambda seconds: "forever" if seconds is None else format_seconds(seconds),
)
def read_retention(value: object) -> float | None:
    """Read a time of whole days, in seconds: `400day`; None: for ever."""
    return None if value is None or value == "forever" else retention_days(value)


PerMinute = Annotated[int, BeforeValidator(Whole(1, 1_000_000))]
RetentionTime = Annotated[float | None, BeforeValidator(read_retention)]


class Token(Part):
    """A token of a caller: with a `role` or a `customer`. Holders send `Authorization: Bearer TOKEN`.

    [Tokens](collector.md#tokens) has how to replace one.
    """

    name: Name | None = Field(
        default=None,
        description="Name that edges are bound to, and that the audit log has. By default `token-` and eight digits "
        "of the first hash.",
    )
    sha256: Annotated[tuple[str, ...], BeforeValidator(read_digests)] = Field(
        description="SHA-256 of the token: `printf %s TOKEN | sha256sum`. A list while one secret replaces another; "
        "then it needs a name."
    )
    role: Literal["edge", "beacon", "service", "read", "support", "billing", "admin"] | None = Field(
        default=None,
        description="`edge` ships usage, `beacon` reports latencies, `service` reports its own usage. `read` reads "
        "everything; `support` also helps customers, `billing` also sees money; `admin` may do everything.",
    )
    customer: Name | None = Field(default=None, description="Customer whose own usage may be read, instead of a role.")
    edge: Name | None = Field(default=None, description="The only edge that may ship with it. By default any.")
    region: Name | None = Field(
        default=None, description="The only region whose edges may ship with it. By default any."
    )
    expires: Moment | None = Field(
        default=None,
        description="End of the token: a date (its beginning in UTC) or an RFC 3339 time. By default never.",
    )
    sensitive: Switch = Field(
        default=False, description="Allows what people need a second factor for, such as to delete a customer."
    )

    @property
    def label(self) -> str:
        """The token's name, or what stands for one."""
        return self.name or f"token-{self.sha256[0][:8]}"


class Published(Part):
    """Publication of the customer directory."""

    key: File = Field(description="Private key that signs the directory, as `edgeproxy directory keygen` writes it.")
    hub: Annotated[Hub, BeforeValidator(hub_settings.read_hub)] | None = Field(
        default=None, description="Hub to which the directory is copied, for edges that read it there. By default none."
    )


class Retention(Part):
    """Times for which counts are kept.

    Days, events, and the times at which [places](billing.md#places) were held, are kept for ever.
    """

    minutes: RetentionTime = Field(
        default=400 * DAY_SECONDS,
        description="Usage by minute. PostgreSQL drops whole months. With `billing`, unless its `mode` is `off`, at "
        "least 31 days and `freeze`.",
    )
    hours: RetentionTime = Field(default=None, description="Usage by hour; not shorter than `minutes`.")
    batches: RetentionTime = Field(
        default=100 * DAY_SECONDS,
        description="Batches of edges, by which `edgeproxy verify` proves the ledger. Older ones leave their sums by "
        "day.",
    )
    deleted: RetentionTime = Field(
        default=30 * DAY_SECONDS,
        description="Keys, `external_id`, `metadata` and settings of a customer after the begin of its "
        "[deletion](accounts.md#a-customer). Name, id, tier and counts stay.",
    )
    webhooks: RetentionTime = Field(
        default=60 * DAY_SECONDS,
        description="[Events of Stripe](stripe.md#webhooks) with their payload, from their arrival. Those still to be "
        "applied, and dead letters, stay.",
    )


class Edges(Part):
    """Bounds on edges."""

    per_token: Annotated[int, BeforeValidator(Whole(1, 1_000_000))] = Field(
        default=500,
        description="Edges that may be bound to one token, without "
        "[retired](collector.md#edges-that-are-gone-for-good) ones. The first batch of a further one gets 429, and "
        "waits at its edge. Raise it, or give each region a token.",
    )


class ChangesPerMinute(Part):
    """Changes that a caller may make in a minute; beyond it 429 with `Retry-After`.

    Each token and each signed-in person counts alone, at each collector. Attempts count. Batches, events, reports of
    latencies and allocations are no changes. `/billing/…` has [limits](billing.md#subscriptions) beside these.
    """

    customers: PerMinute = Field(
        default=60,
        description="Of a customer's token, and of a contact in the portal. Raise it if customers make keys by "
        "machine.",
    )
    operators: PerMinute = Field(
        default=1200,
        description="Of a token of the role `support`, `billing` or `admin`, and of an operator. Raise it to create "
        "many customers over HTTP; `edgeproxy import` is exempt.",
    )


class Metrics(Part):
    """Access to `GET /metrics`.

    Without tokens everybody who reaches the collector may read it, but for business metrics (revenue, cost, margin,
    credits, refunds, purchases, invoices). Those are for this host alone: for requests to a loopback address, by its
    name, without fields of proxies (`X-Forwarded-*`, `X-Real-IP`, `Forwarded`, `Via`) and of pages (`Origin`). A proxy
    on this host that adds none of these, such as `proxy_pass` of nginx alone, looks like Prometheus: use tokens behind
    one.
    """

    tokens: Annotated[tuple[AdminToken, ...], BeforeValidator(read_pairs)] = Field(
        default=(),
        description="Tokens of readers, like [those of `admin`](#admintokens): `{name: prometheus, sha256: HEX}`. "
        "Prometheus sends one with `authorization: {credentials: TOKEN}`. Other metrics name edges and certificates: "
        "use tokens if others than your Prometheus reach the collector.",
    )


class CollectorFile(Part):
    """Settings of collector.yaml and the files that it includes."""

    listen: Annotated[
        tuple[Annotated[CollectorListener, BeforeValidator(parsers.read_listener)], ...],
        BeforeValidator(parsers.read_one_or_more),
        FieldMark.RESTART,
    ] = Field(
        default=(CollectorListener(address=addresses.Address("127.0.0.1", 9100)),),
        description="Addresses where edges, services, readers and browsers connect. An address alone serves "
        "everything to everybody; `check` warns of one that outsiders may reach without TLS.",
    )
    tls: Tls | None = Field(
        default=None,
        description="TLS of all listeners without their own. Use it if clients are on other hosts: tokens are on the "
        "way. By default HTTP.",
    )
    trusted_proxies: tuple[Network, ...] = Field(
        default=(),
        description="Proxies whose `X-Forwarded-For` names the client: for limits by address, `allow` of a listener, "
        "and the audit log. Without them all clients behind a proxy share one limit.",
    )
    changes_per_minute: Annotated[ChangesPerMinute, FieldMark.RESTART] = Field(
        default=ChangesPerMinute(), description="Changes that a caller may make in a minute."
    )
    edges: Annotated[Edges, FieldMark.RESTART] = Field(default=Edges(), description="Bounds on edges.")
    metrics: Metrics = Field(default=Metrics(), description="Access to `GET /metrics`.")
    database: Annotated[str, BeforeValidator(read_database), FieldMark.RESTART] = Field(
        default="sqlite:///var/collector/ledger.db",
        description="Database of the ledger. To PostgreSQL on another host write `?sslmode=verify-full`. Its user "
        "owns the tables, or [another one](collector.md#an-owner-of-its-own); [row-level "
        "security](collector.md#row-level-security) needs two roles. Take the password from the environment.",
    )
    retention: Annotated[Retention, FieldMark.RESTART] = Field(
        default=Retention(), description="Times for which counts are kept."
    )
    tokens: Annotated[tuple[Token, ...], Field(min_length=1), FieldMark.FILLED] = Field(
        description="Tokens of callers."
    )
    directory: Annotated[Published | None, FieldMark.RESTART] = Field(
        default=None, description="Publication of customers and keys to edges. By default none."
    )
    operators: Operators | None = Field(
        default=None,
        description="[Operators](collector.md#operators): people who sign in at an issuer of OpenID Connect. By "
        "default none.",
    )
    meters: dict[Name, Meter] = Field(
        default_factory=lambda: {"requests": Meter(count="requests")},
        description="Meters of the edges. Usage of other meters is kept and flagged.",
    )
    tiers: dict[Name, Tier] = Field(default_factory=dict, description="Tiers of customers, as at the edges.")
    customers: dict[Name, Customer] = Field(
        default_factory=dict, description="Customers. Usage of others is kept and flagged."
    )
    keys: tuple[Key, ...] = Field(default=(), description="Keys that customers send to edges.")
    flags: dict[Name, Flag] = Field(
        default_factory=dict, description="Flags of customers who see routes that others do not."
    )
    regions: Measured | None = Field(
        default=None,
        description="Regions between which clients are sent to the nearest: see [routing by "
        "region](region-routing.md). By default none.",
    )
    alerts: Alerts = Field(
        default=Alerts(), description="[Alerts](alerting.md) and where they go. By default to the log."
    )
    anomalies: Anomalies = Field(default=Anomalies(), description="Detection of [anomalies](anomalies.md) in usage.")
    billing: Billing | None = Field(default=None, description="Plans and charging. By default nothing is sold.")
    pages: Annotated[Pages | None, FieldMark.RESTART] = Field(
        default=None,
        description="[Pages](pages.md): the operators' console, the customers' portal, the public status. By default "
        "none.",
    )


class CollectorSettings(CollectorFile):
    """Settings of a collector that passed every check."""

    plans: dict[str, Plan] = Field(default={}, description="Plans by version, of the file that `billing.plans` names.")
    sha256: str = Field(description="Over the bytes of all files in the order of reading, in hex.")


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
