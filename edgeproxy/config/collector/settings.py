"""Settings of collector.yaml.

Tiers, meters, customers, keys and flags are as in edge.yaml, so that both can include common files.
"""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from edgeproxy.config import addresses, hub_settings, parsers
from edgeproxy.config.collector.account import Account
from edgeproxy.config.collector.alerts import Alerts
from edgeproxy.config.collector.anomalies import Anomalies
from edgeproxy.config.collector.billing import Billing
from edgeproxy.config.collector.catalog import Plan
from edgeproxy.config.collector.database_url import read_database
from edgeproxy.config.collector.encryption import Encryption
from edgeproxy.config.collector.listeners import CollectorListener, Tls
from edgeproxy.config.collector.operators import Operators
from edgeproxy.config.collector.pages import Pages
from edgeproxy.config.collector.privacy import Privacy
from edgeproxy.config.collector.regions import Measured
from edgeproxy.config.collector.residencies import RESIDENCIES_MAX, OtherResidency
from edgeproxy.config.collector.rotation import Rotation
from edgeproxy.config.collector.webhooks import Webhooks
from edgeproxy.config.customers import Customer, Flag, Key
from edgeproxy.config.field_types import File, Moment, Name, Network, ResidencyName, Switch
from edgeproxy.config.forms import build_text, written
from edgeproxy.config.hub_settings import Hub
from edgeproxy.config.meters import Meter
from edgeproxy.config.outgoing import PROXY_DESCRIPTION, TRUST, ProxyField, Trust
from edgeproxy.config.part import FieldMark, Part
from edgeproxy.config.tiers import Tier
from edgeproxy.config.tokens import AdminToken, read_digests, read_pairs
from edgeproxy.config.tracing import Tracing
from edgeproxy.config.units import (
    DAY_SECONDS,
    TIME_PATTERN,
    Days,
    Whole,
    format_seconds,
)

KEEP_DAYS_MIN = 2
"""Minimum retention of anything, in days, so that late data finds its context."""


retention_days = Days(KEEP_DAYS_MIN, 36500, also="forever, or ")


@written(
    build_text("days or `forever`", f"forever|{TIME_PATTERN}", "400day", "forever"),
    lambda seconds: "forever" if seconds is None else format_seconds(seconds),
)
def read_retention(value: object) -> float | None:
    """Read a time of whole days, in seconds: `400day`. None: for ever."""
    return None if value is None or value == "forever" else retention_days(value)


PerMinute = Annotated[int, BeforeValidator(Whole(1, 1_000_000))]
RetentionTime = Annotated[float | None, BeforeValidator(read_retention)]


class Token(Part):
    """A token of a caller: with a `role` or a `customer`. Holders send `Authorization: Bearer TOKEN`.

    [Tokens](collector.md#tokens) explains how to replace one.
    """

    name: Name | None = Field(
        default=None,
        description="Name of the token. Edges are bound to it, and the audit log shows it. By default `token-` and "
        "eight digits of the first hash.",
    )
    sha256: Annotated[tuple[str, ...], BeforeValidator(read_digests)] = Field(
        description="SHA-256 of the token: `printf %s TOKEN | sha256sum`. Write a list while one secret replaces "
        "another; the token then needs a name."
    )
    role: Literal["edge", "beacon", "service", "aggregates", "read", "support", "billing", "admin"] | None = Field(
        default=None,
        description="`edge` ships usage, `beacon` reports latencies, `service` reports its own usage. `aggregates` "
        "reads only the [sums of the residency](residency.md#sums-of-all-residencies). `read` reads everything; "
        "`support` also helps customers, `billing` also sees money; `admin` may do everything.",
    )
    customer: Name | None = Field(
        default=None, description="Customer whose own usage the token may read, instead of a role."
    )
    edge: Name | None = Field(default=None, description="The only edge that may ship with the token. By default any.")
    region: Name | None = Field(
        default=None, description="The only region whose edges may ship with the token. By default any."
    )
    expires: Moment | None = Field(
        default=None,
        description="End of the token: a date (its beginning in UTC) or an RFC 3339 time. By default never.",
    )
    sensitive: Switch = Field(
        default=False, description="Allows actions that need a second factor from people, such as deleting a customer."
    )

    @property
    def label(self) -> str:
        """The token's name, or a substitute."""
        return self.name or f"token-{self.sha256[0][:8]}"


class Published(Part):
    """Publication of the customer directory."""

    key: File = Field(
        description="Private key that signs the directory, in the form that `edgeproxy directory keygen` writes."
    )
    hub: Annotated[Hub, BeforeValidator(hub_settings.read_hub)] | None = Field(
        default=None,
        description="Hub that gets a copy of the directory, for edges that read it there. By default none.",
    )


class Retention(Part):
    """The time that counts are kept.

    Days, events, and the times when [places](billing.md#places) were held are kept for ever.
    """

    minutes: RetentionTime = Field(
        default=400 * DAY_SECONDS,
        description="Usage by minute. PostgreSQL drops whole months. With `billing`, unless its `mode` is `off`, at "
        "least 31 days and at least `freeze`.",
    )
    hours: RetentionTime = Field(default=None, description="Usage by hour; not shorter than `minutes`.")
    batches: RetentionTime = Field(
        default=100 * DAY_SECONDS,
        description="Batches of edges. `edgeproxy verify` proves the ledger with them. Older batches leave only their "
        "sums by day.",
    )
    traffic_minutes: RetentionTime = Field(
        default=7 * DAY_SECONDS,
        description="[Traffic](collector.md#traffic) by minute: requests, errors and latencies as edges report them, "
        "and errors of each customer.",
    )
    traffic_hours: RetentionTime = Field(default=400 * DAY_SECONDS, description="Traffic by hour.")
    deleted: RetentionTime = Field(
        default=30 * DAY_SECONDS,
        description="Personal data of a customer after the start of its [deletion](accounts.md#a-customer): see [what "
        "is erased](privacy.md#erasure). Name, id, tier and counts stay.",
    )
    webhooks: RetentionTime = Field(
        default=60 * DAY_SECONDS,
        description="[Events of Stripe](stripe.md#webhooks) with their payload, from their arrival. Events still to be "
        "applied, and dead letters, stay.",
    )
    invoices: RetentionTime = Field(
        default=3653 * DAY_SECONDS,
        description="Personal data on invoices and in the journal, from the end of their calendar year (UTC): see [the "
        "end of the books](privacy.md#the-end-of-the-books). By default ten years. Sums stay.",
    )


class Edges(Part):
    """Bounds on edges."""

    per_token: Annotated[int, BeforeValidator(Whole(1, 1_000_000))] = Field(
        default=500,
        description="Edges that may be bound to one token, without "
        "[retired](collector.md#edges-that-are-gone-for-good) ones. The first batch of a further edge gets 429, and "
        "waits at the edge. Raise it, or give each region its own token.",
    )


class ChangesPerMinute(Part):
    """Changes that a caller may make in a minute; beyond it 429 with `Retry-After`.

    Each token and each signed-in person has its own count, at each collector. Attempts count. Batches, events, reports
    of latencies and allocations are not changes. `/billing/…` has [further limits](billing.md#subscriptions).
    """

    customers: PerMinute = Field(
        default=60,
        description="For a customer's token, and for a contact in the portal. Raise it if customers create keys by "
        "program.",
    )
    operators: PerMinute = Field(
        default=1200,
        description="For a token of the role `support`, `billing` or `admin`, and for an operator. Raise it to create "
        "many customers over HTTP; `edgeproxy import` is exempt.",
    )


class Metrics(Part):
    """Access to `GET /metrics`.

    Without tokens every client of the collector may read it, except business metrics (revenue, cost, margin,
    credits, refunds, purchases, invoices). Only this host may read these: in requests to a loopback address and its
    name, without fields that proxies add (`X-Forwarded-*`, `X-Real-IP`, `Forwarded`, `Via`) or browsers do (`Origin`).
    A proxy on this host that adds none of these fields, for example nginx with `proxy_pass` alone, cannot be told from
    Prometheus: use tokens behind such a proxy.
    """

    tokens: Annotated[tuple[AdminToken, ...], BeforeValidator(read_pairs)] = Field(
        default=(),
        description="Tokens of readers, like [tokens of `admin`](#admintokens): `{name: prometheus, sha256: HEX}`. "
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
        description="Addresses for connections of edges, services, readers and browsers. An address alone serves "
        "everything to everybody; `check` warns of an address that outsiders may reach without TLS.",
    )
    tls: Tls | None = Field(
        default=None,
        description="TLS of all listeners without their own. Use it if clients are on other hosts, because requests "
        "carry tokens. By default HTTP.",
    )
    trusted_proxies: tuple[Network, ...] = Field(
        default=(),
        description="Proxies whose `X-Forwarded-For` names the client: for limits by address, the `allow` of a "
        "listener, and the audit log. Without them all clients behind a proxy share one limit.",
    )
    changes_per_minute: Annotated[ChangesPerMinute, FieldMark.RESTART] = Field(
        default=ChangesPerMinute(), description="Changes that a caller may make in a minute."
    )
    edges: Annotated[Edges, FieldMark.RESTART] = Field(default=Edges(), description="Bounds on edges.")
    metrics: Metrics = Field(default=Metrics(), description="Access to `GET /metrics`.")
    database: Annotated[str, BeforeValidator(read_database), FieldMark.RESTART] = Field(
        default="sqlite:///var/collector/ledger.db",
        description="Database of the ledger. PostgreSQL takes [parameters](collector.md#connections-to-postgresql) "
        "after a `?`: for another host write `?sslmode=verify-full`. Its user owns the tables, or [another "
        "one](collector.md#an-owner-of-its-own) does; [row-level security](collector.md#row-level-security) needs two "
        "roles. Take the password from the environment or a file; a reload [takes a new "
        "one](security.md#replacing-a-secret).",
    )
    trust: Trust = Field(default=Trust(), description=TRUST)
    proxy: ProxyField | None = Field(default=None, repr=False, description=PROXY_DESCRIPTION)
    residency: Annotated[ResidencyName | None, FieldMark.RESTART] = Field(
        default=None,
        description="[Residency](residency.md) of this collector's customers, such as `eu`. Batches that an edge ships "
        "for another residency are refused. By default there is one residency, without a name.",
    )
    residencies: Annotated[dict[ResidencyName, OtherResidency], Field(max_length=RESIDENCIES_MAX)] = Field(
        default_factory=dict,
        description="Collectors of the other residencies. The console shows their "
        "[sums](residency.md#sums-of-all-residencies). By default none.",
    )
    retention: Annotated[Retention, FieldMark.RESTART] = Field(
        default=Retention(), description="How long counts are kept."
    )
    tokens: Annotated[tuple[Token, ...], Field(min_length=1), FieldMark.FILLED] = Field(
        description="Tokens of callers."
    )
    directory: Published | None = Field(
        default=None, description="Publication of customers and keys to edges. By default none."
    )
    operators: Operators | None = Field(
        default=None,
        description="[Operators](collector.md#operators): people who sign in at an issuer of OpenID Connect. By "
        "default none.",
    )
    meters: dict[Name, Meter] = Field(
        default_factory=lambda: {"requests": Meter(count="requests")},
        description="Meters of the edges. Usage of other meters is stored and flagged.",
    )
    tiers: dict[Name, Tier] = Field(
        default_factory=dict, description="Tiers of customers, with the same names as at the edges."
    )
    customers: dict[Name, Customer] = Field(
        default_factory=dict, description="Customers. Usage of others is stored and flagged."
    )
    keys: tuple[Key, ...] = Field(default=(), description="Keys that customers send to edges.")
    flags: dict[Name, Flag] = Field(
        default_factory=dict, description="Flags: some customers see routes that others do not."
    )
    accounts: dict[Name, Account] = Field(
        default_factory=dict,
        description="[Facts about customers](accounts.md#files-into-the-database-and-back) that only the database has. "
        "`edgeproxy import` reads them, and a collector ignores them.",
    )
    regions: Measured | None = Field(
        default=None,
        description="Regions for sending clients to the nearest one: see [routing by region](region-routing.md). By "
        "default none.",
    )
    alerts: Alerts = Field(
        default=Alerts(), description="[Alerts](alerting.md) and their channels. By default alerts go to the log."
    )
    rotation: Rotation | None = Field(
        default=None,
        description="Rotation of keys that are due. By default each key that is due raises one alert, and operators or "
        "customers rotate it.",
    )
    webhooks: Webhooks | None = Field(
        default=None, description="Customers' own [webhooks](webhooks.md). By default they have none."
    )
    privacy: Annotated[Privacy | None, FieldMark.RESTART] = Field(
        default=None,
        description="[Personal data](privacy.md): a list of erasures, and masked addresses. By default neither.",
    )
    encryption: Annotated[Encryption | None, FieldMark.RESTART] = Field(
        default=None,
        description="[Encryption at rest](encryption.md) of columns with personal data, with a key for each customer. "
        "By default they are stored in clear text.",
    )
    tracing: Tracing | None = Field(
        default=None, description="[Tracing](tracing.md) with OpenTelemetry. By default nothing is traced."
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

    plans: dict[str, Plan] = Field(default={}, description="Plans by version, from the file in `billing.plans`.")
    sha256: str = Field(description="Hash over the bytes of all files in the order of reading, in hex.")
