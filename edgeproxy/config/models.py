"""The configuration as the rest of the edge sees it: frozen, every value in its plain unit.

Durations are seconds (float), sizes bytes (int), rates a count and seconds, moments Unix seconds. Each model
is also what operators write: its fields are those of the file, and the types below read the written form
(`5s`, `64KiB`, `60/min`). A docstring below a field is what editors show of it (`schema.py`). What no single
part can know, such as whether a tier exists, is checked by `references.py`.
"""

from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, PlainSerializer, Tag, model_validator

from edgeproxy.config import parsers, units
from edgeproxy.config.admin import Admin, read_admin, validate_admin
from edgeproxy.config.algorithms import DEFAULT_ALGORITHM, DEFAULT_DEPTHS, AlgorithmName
from edgeproxy.config.auth import Auth, add_certificate_digest, read_certificate_name
from edgeproxy.config.compression import Compress, read_compress
from edgeproxy.config.cors import Cors
from edgeproxy.config.dimensions import VALUES_MAX
from edgeproxy.config.directory_settings import CacheKey, Directory, read_cache_key
from edgeproxy.config.issuers import Issuer, read_auth
from edgeproxy.config.meters import AggregateName, CountName, add_refusal_dimensions
from edgeproxy.config.networks import Networks
from edgeproxy.config.part import Part
from edgeproxy.config.paths import Paths
from edgeproxy.config.rewrites import Base, Redirect, Respond, Rewrite, read_redirect
from edgeproxy.config.rules import RequestRule
from edgeproxy.config.timeouts import Duration, RouteTimeouts, Timeouts

CREDITS = "credits"
"""What clients call what was paid in advance."""

Name = Annotated[str, BeforeValidator(parsers.read_name)]
DimensionName = Annotated[str, BeforeValidator(parsers.read_dimension_name)]
Scope = Annotated[str, BeforeValidator(parsers.read_scope)]
Folder = Annotated[Path, BeforeValidator(parsers.read_folder)]
File = Annotated[Path, BeforeValidator(parsers.read_file)]
Wait = Annotated[float, BeforeValidator(units.read_wait)]
Moment = Annotated[float, BeforeValidator(units.read_moment)]
Rows = Annotated[int, BeforeValidator(units.Whole(1, 16_000_000))]
Count = Annotated[int, BeforeValidator(units.Whole(1, units.COUNT_MAX))]
Priority = Annotated[int, BeforeValidator(units.Whole(0, 1000))]
Sentence = Annotated[str, BeforeValidator(parsers.read_sentence)]
FieldName = Annotated[str, BeforeValidator(parsers.read_field_name)]
Switch = Annotated[bool, BeforeValidator(units.read_switch)]
Protocol = Annotated[str, BeforeValidator(parsers.read_protocol)]
Share = Annotated[float, BeforeValidator(units.read_share)]
Sample = Annotated[float, BeforeValidator(units.read_sample)]
Rate = Annotated[units.Rate, BeforeValidator(units.read_rate), PlainSerializer(str)]
Address = Annotated[parsers.Address, BeforeValidator(parsers.read_address), PlainSerializer(str)]
Network = Annotated[parsers.Network, BeforeValidator(parsers.read_network), PlainSerializer(str)]


class Rated(Part):
    """Whatever has a rate: at most `count` requests in any `window` seconds."""

    rate: Rate
    """How many requests in which time: 60/min, 200/s, 100/10s."""

    @property
    def count(self) -> int:
        """Requests that the window may hold."""
        return self.rate.count

    @property
    def window(self) -> float:
        """Seconds."""
        return self.rate.seconds


class PerIp(Rated):
    """The coarse limit per address, the first layer of all."""


class Limit(Rated):
    """One limit of a tier or of a customer. It is what it limits, its scope, window, algorithm and mode."""

    name: Name
    """A label that clients see; by default the tier's name, then <tier>-2 and so on."""
    algorithm: AlgorithmName = DEFAULT_ALGORITHM
    """How requests are counted: in a window that slides with the time, in a bucket that the rate empties, or both."""
    burst: Count | None = None
    """How deep the bucket is. By default a token_bucket holds the rate's count, and a hybrid a tenth of it."""
    scope: Literal["customer", "key", "ip", "route", "customer_route"] = "customer"
    """What shares the limit: the requests of a customer, a key, an address, a route, or of a customer on a route."""
    mode: Literal["enforce", "shadow"] = "enforce"
    """What happens above the limit: the request is refused; shadow: an answer's field says that it would have been."""
    cost_header: FieldName | None = None
    """The field in which the upstream's answer says how much a request counts for."""
    sync: Literal["bounded", "eventual", "strict"] = "bounded"
    """How closely the hosts of a hub keep it: bounded may ask the hub first, eventual never does, strict always."""

    @property
    def depth(self) -> int:
        """What the bucket holds; 0 where the algorithm has none."""
        default = DEFAULT_DEPTHS[self.algorithm]
        if default is None:
            return 0
        return default(self.count) if self.burst is None else self.burst


class RouteLimit(Limit):
    """One limit of a route, beside those of whoever asks."""

    name: Name
    """A label that clients see; by default the route's name, or one made of its path, then <name>-2 and so on."""
    scope: Literal["customer", "key", "ip", "route", "customer_route"] = "customer_route"
    """What shares the limit: the requests of a customer on the route, or as in tiers."""


class KeyLimit(Limit):
    """One limit of a key, beside those of its customer."""

    name: Name
    """A label that clients see; by default key, then key-2 and so on."""
    scope: Literal["key"] = "key"
    """What shares the limit: the requests of the key."""


class Quota(Part):
    """How much of a meter is included in a day or a month of the calendar, or at any time."""

    meter: Name
    """What is counted."""
    per: Literal["day", "month"] | None = None
    """After which time the count begins anew; None: never, as it is of what exists."""
    included: Annotated[int, BeforeValidator(units.Whole(0, (1 << 53) - 1))]
    """How much of it is included."""
    cap: Literal["soft", "hard"] = "soft"
    """What happens above: soft lets requests pass and marks them, hard refuses them."""
    timezone: Annotated[str, BeforeValidator(parsers.read_timezone)] = "UTC"
    """Whose midnight begins a day or a month, such as Europe/Berlin."""

    @property
    def name(self) -> str:
        """What clients call it, such as `requests-month`, or `seats`."""
        return self.meter if self.per is None else f"{self.meter}-{self.per}"

    @property
    def count_name(self) -> str:
        """What its count is called: quotas of one count have one name."""
        return f"{self.meter}-{self.per}"


class Entitlement(Quota):
    """A quota that a customer has beside those of its tier: by its plan, or by credits that were bought in advance.

    The collector makes them, for edges of the directory; no file says so.
    """

    per: Annotated[str | None, Field(pattern=r"^(month(@[0-9]{1,10})?|ever@[0-9]{1,10})$")] = None  # type: ignore[assignment]
    """`month`: of the calendar; `month@SECOND`: counted from that Unix second on; `ever@NUMBER`: of credits."""
    why: Sentence | None = None
    """What is said to those whom it refuses; None: what is said of any quota."""
    grace: int | None = None
    """Seconds after which a soft one refuses, once it was passed; None: it never does."""

    @property
    def name(self) -> str:
        """What clients call it."""
        kind = (self.per or "").partition("@")[0]
        return {"": self.meter, "ever": CREDITS}.get(kind, f"{self.meter}-{kind}")

    @property
    def is_credits(self) -> bool:
        """Whether it is what was bought in advance: once that is spent, answers are 402."""
        return self.per is not None and self.per.startswith("ever")


class Caps(Part):
    """What may be spent at most, in millicredits, as the meter `cost` counts it."""

    request: Count | None = None
    """By a request, as the route's `cost` foretells; by default any number."""
    day: Annotated[int, BeforeValidator(units.Whole(1, (1 << 53) - 1))] | None = None
    """In a day of UTC; by default any number."""
    session: Rate | None = None
    """In any time of that length: 100000/60min; by default any number."""


class BurstCredits(Part):
    """What is earned while a customer is within the limits, and spent beyond them."""

    earn: Rate
    """How many requests are earned in which time: 10/s."""
    max: Count
    """How many can be saved up."""


class Dimension(Part):
    """What the usage of a meter is split by, such as the model that was asked."""

    values: Annotated[int, BeforeValidator(units.Whole(1, VALUES_MAX))]
    """How many values of it a customer may have in a month; what is beyond them counts as `~other`."""
    header: FieldName | None = None
    """The field in the head of the upstream's answer that has the value; events say it themselves."""


class Meter(Part):
    """A named thing that is counted for billing."""

    count: CountName
    """What is counted: requests, the bytes of bodies and tunnels, costs of routes, what upstreams report, or the events
    that services report to the collector."""
    when: Literal["answered", "success", "admitted"] = "answered"
    """Which requests count: answered below 500, successful (2xx and 3xx), or all that were let through."""
    header: FieldName | None = None
    """The field in which the upstream reports a whole number, in the head or among the trailers of its answer."""
    pass_: Switch = Field(default=False, alias="pass")
    """Whether the client gets the fields in which the upstream reports."""
    aggregate: AggregateName = "sum"
    """What events come to: their sum, the highest level, the last one, the average over time, or how many differ. Of
    places that are billed, the highest number that is held at once, or the average."""
    dimensions: dict[DimensionName, Annotated[Dimension, BeforeValidator(parsers.read_dimension)]] = {}
    """What usage is split by beside customer and route; by default nothing."""

    _split = model_validator(mode="before")(add_refusal_dimensions)


class Tier(Part):
    """A plan: what holds for each of its customers."""

    limits: tuple[Limit, ...] = ()
    """What each customer of the tier may use; none: no limit."""
    concurrency: Annotated[int | None, BeforeValidator(units.read_concurrency)] = None
    """How many requests a customer may have under way at once, or `none` for any number."""
    quotas: tuple[Quota, ...] = ()
    """What is included in a day or a month; none: anything."""
    burst_credits: Annotated[BurstCredits | None, BeforeValidator(parsers.read_unless_off)] = None
    """What may be saved up for later; by default, and where it says `off`, nothing."""
    caps: Caps | None = None
    """What may be spent at most; none: anything."""
    priority: Priority = 0
    """Who is turned away first while there is too much to do: those of the lowest."""
    message: Sentence | None = None
    """What is said to those who are refused, beside why."""
    analytics: Annotated[float | None, BeforeValidator(units.read_analytics)] = None
    """For how long customers see their usage in detail; then as totals of whole months. By default always."""


class Paused(Part):
    """Why a customer is not served for now."""

    why: Sentence
    """What the customer is told."""
    status: Annotated[Literal[403, 402], BeforeValidator(units.read_pause)] = 403
    """The status of the answer: 403, or 402 where it is about a payment."""


class Regions(Part):
    """Where a customer is served."""

    allow: Annotated[tuple[Name, ...], Field(min_length=1)] | None = None
    """The regions that serve the customer; all others refuse. By default all serve."""
    prefer: Name | None = None
    """The region whose endpoints are asked first; by default that of the edge."""


OwnCors = Annotated[
    Annotated[Cors, Tag(parsers.GIVEN)] | Annotated[Literal["off"], Tag(parsers.OFF[0])],
    Discriminator(parsers.get_union_tag),
    BeforeValidator(parsers.read_or_off),
]
OwnConcurrency = Annotated[int | Literal["none"], BeforeValidator(units.read_own_concurrency)]
OwnCredits = Annotated[
    Annotated[BurstCredits, Tag(parsers.GIVEN)] | Annotated[Literal["off"], Tag(parsers.OFF[0])],
    Discriminator(parsers.get_union_tag),
    BeforeValidator(parsers.read_or_off),
]


class Customer(Part):
    """Who pays. What is said here replaces what the tier says."""

    tier: Name
    """The tier that the customer pays for."""
    limits: tuple[Limit, ...] | None = None
    """The customer's own limits. They replace the tier's, even where there are none in the list."""
    concurrency: OwnConcurrency | None = None
    """The customer's own number of requests at once; `none`: any, whatever the tier says."""
    quotas: tuple[Quota, ...] | None = None
    """The customer's own quotas. They replace the tier's, even where there are none in the list."""
    burst_credits: OwnCredits | None = None
    """The customer's own burst credits; `off`: none, whatever the tier says."""
    caps: Caps | None = None
    """The customer's own caps. They replace the tier's, even where there are none in the mapping."""
    priority: Priority | None = None
    """The customer's own priority."""
    message: Sentence | None = None
    """What is said to this customer on refusal, instead of what the tier says."""
    revoked: tuple[str, ...] = ()
    """Tokens of issuers that count no longer, by their claim jti."""
    paused: Paused | None = None
    """Why the customer is not served for now; by default they are."""
    regions: Regions | None = None
    """Where the customer is served; by default everywhere."""
    networks: Networks | None = None
    """From where the customer may come; by default from everywhere."""
    flags: tuple[Name, ...] = ()
    """Flags that the customer has, whatever is said of them elsewhere."""


class Subscriber(Customer):
    """A customer as the directory tells of it: with what follows from its plan and its credits."""

    entitled: tuple[Entitlement, ...] = ()
    """Quotas beside those of the tier."""


@lru_cache(1024)
def intern_customer(customer: Customer) -> Customer:
    """The first of customers of whom the same is said: a million may have a tier, and nothing else."""
    return customer


class Key(Part):
    """A secret that a customer sends, of which only the hash is known here; or the name in a certificate."""

    sha256: Annotated[str, BeforeValidator(parsers.read_digest)]
    """The SHA-256 of the key in hex (lower case once read); `edgeproxy key new` prints it."""
    certificate: Annotated[str, BeforeValidator(read_certificate_name)] | None = Field(default=None, exclude=True)
    """In place of `sha256`, the name in the customer's certificate."""
    customer: Name
    """Whose key it is."""
    scopes: frozenset[Scope] | None = None
    """What the key may do: a route that asks for scopes wants all of them here. By default nothing of that kind."""
    expires: Moment | None = None
    """When the key ends: a date (its beginning in UTC), or a time as in RFC 3339."""
    limits: tuple[KeyLimit, ...] = ()
    """Limits of this key, beside those of the customer."""

    _digested = model_validator(mode="before")(add_certificate_digest)


class Endpoint(Part):
    """One address of an upstream."""

    url: Annotated[str, BeforeValidator(parsers.read_origin)]
    """http://HOST:PORT or https://HOST:PORT, once read always with the port."""
    path: Base | None = None
    """What is put before the path of each request: the same for all endpoints of an upstream."""
    weight: Annotated[int, BeforeValidator(units.Whole(1, 1000))] = 1
    """Its share of the requests, relative to the other endpoints'."""
    region: Name | None = None
    """Where it is; endpoints of the edge's own region, and those without one, are asked first."""

    @property
    def scheme(self) -> str:
        """`http` or `https`."""
        return self.url.partition("://")[0]

    @property
    def authority(self) -> str:
        """`HOST:PORT`, IPv6 in brackets."""
        return self.url.partition("://")[2]

    @property
    def host(self) -> str:
        """A host name or an IP address, IPv6 without brackets."""
        return self.authority.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        """A TCP port."""
        return int(self.authority.rpartition(":")[2])

    def find_sent_host(self, host: str) -> str | None:
        """The Host that it gets where `host` is what its upstream says of that; None for the client's own."""
        if host == "upstream":
            # As clients write it: without the port where it is the scheme's (RFC 9110 section 7.2).
            return self.authority.removesuffix(f":{parsers.PORTS[self.scheme]}")
        return None if host == "pass" else host


class Health(Part):
    """How endpoints are probed. Two failures in a row take one out, two passes bring it back."""

    path: Annotated[str, BeforeValidator(parsers.read_target)]
    """What is asked with GET; any answer of 2xx or 3xx is a pass."""
    every: Duration = 5.0
    """Between two probes of an endpoint, and the longest that one may take."""


class Retry(Part):
    """When a request is sent again: where that does no harm, and the edge still holds all of it."""

    attempts: Annotated[int, BeforeValidator(units.Whole(1, 10))] = 2
    """How often a request is sent at most, the first time included."""
    budget: Share = 0.2
    """How many retries there may be, as a share of the requests of the last seconds."""


class Eject(Part):
    """When an endpoint is left out for a while; never the only one that is up."""

    errors: Annotated[int, BeforeValidator(units.Whole(1, 1_000_000))] = 5
    """After how many requests in a row that ended in a fault, or in a status of 500 and above."""
    for_: Duration = Field(default=30.0, alias="for")
    """For how long. Back then, its next error ejects it again."""


class Breaker(Part):
    """When an upstream is asked no more."""

    pending: Annotated[int, BeforeValidator(units.Whole(1, 1_000_000))]
    """How many requests may wait for the head of an answer, in all workers together."""


class UpstreamTls(Part):
    """TLS towards an upstream."""

    ca: File | None = None
    """A file with the certificates of those who vouch for the upstream; by default the system's."""
    cert: File | None = None
    """The edge's own certificate, with those between it and its root, where the upstream asks for one."""
    key: File | None = None
    """The private key of `cert`."""
    server_name: Annotated[str, BeforeValidator(parsers.read_server_name)] | None = None
    """The name that the upstream's certificate must have; by default the host of the endpoint."""
    verify: Switch = True
    """Whether the upstream has to prove who it is."""


class CollectorTls(UpstreamTls):
    """TLS towards the collector."""

    ca: File | None = None
    """A file with the certificates of those who vouch for the collector; by default the system's."""
    cert: File | None = None
    """The edge's own certificate, with those between it and its root, where the collector asks for one."""
    server_name: Annotated[str, BeforeValidator(parsers.read_server_name)] | None = None
    """The name that the collector's certificate must have; by default the host of its URL."""
    verify: Switch = True
    """Whether the collector has to prove who it is."""


class Usage(Part):
    """Where usage is shipped."""

    collector: Annotated[str, BeforeValidator(parsers.read_collector)]
    """http://HOST:PORT or https://HOST:PORT, once read always with the port."""
    token: Annotated[str | None, BeforeValidator(parsers.read_token)] = Field(default=None, repr=False)
    """By which the collector knows that an edge ships; one of its tokens with the role `edge`."""
    every: Annotated[float, BeforeValidator(units.Time(0.1, 60.0))] = 5.0
    """After which time what was counted is sealed, and shipped; also at the end of each minute."""
    tls: CollectorTls = CollectorTls()
    """TLS, for a collector of https://."""

    @property
    def is_exposed(self) -> bool:
        """Whether the token can be read by those on the way: it goes to another host, and not over TLS."""
        return (
            self.token is not None and self.collector.startswith("http://") and not parsers.is_local_url(self.collector)
        )


class HubTls(Part):
    """TLS towards the hub."""

    ca: File | None = None
    """A file with the certificates of those who vouch for the hub; by default the system's."""
    cert: File | None = None
    """The edge's own certificate, with those between it and its root, where the hub asks for one."""
    key: File | None = None
    """The private key of `cert`."""
    verify: Switch = True
    """Whether the hub has to prove who it is."""


class Hub(Part):
    """Where hosts agree on limits."""

    url: Annotated[str, BeforeValidator(parsers.read_hub_url)] = Field(default=parsers.MEMORY, repr=False)
    """memory:// is this host alone, redis:// a Redis, redis+cluster:// a Redis Cluster of which some nodes are named.

    rediss:// and rediss+cluster:// are the same over TLS. Once read with every port and the database.
    """
    sync: Annotated[float, BeforeValidator(units.Time(0.1, 10.0))] = 1.0
    """After which time the hub is told of a limit in use; sooner when it matters."""
    on_loss: Literal["share", "full", "deny"] = "share"
    """What this host lets through while the hub is away: its share of each limit, all of it, or nothing."""
    tls: HubTls = HubTls()
    """TLS, for a hub of rediss:// or rediss+cluster://."""

    @property
    def is_shared(self) -> bool:
        """Whether other hosts may take part."""
        return self.url != parsers.MEMORY

    @property
    def name(self) -> str:
        """The URL without its password, for people and for processes that do not connect to it."""
        return parsers.remove_password(self.url)

    @property
    def is_exposed(self) -> bool:
        """Whether the password can be read by those on the way: it goes to another host, and not over TLS."""
        plain = self.url.startswith(("redis://", "redis+cluster://"))
        return plain and parsers.has_password(self.url) and not parsers.is_local_hub(self.url)


class Upstream(Part):
    """A service behind the edge."""

    endpoints: Annotated[tuple[Annotated[Endpoint, BeforeValidator(parsers.read_endpoint)], ...], Field(min_length=1)]
    """Where the service listens; requests are shared among its endpoints."""
    timeouts: Timeouts = Timeouts()
    """How long the upstream may take."""
    buffer: Annotated[int, BeforeValidator(units.Size(1, 1 << 50))] | None = None
    """With it, requests are sent once their bodies are whole; no body may be larger."""
    head: Annotated[int, BeforeValidator(units.Size(16 << 10, 256 << 10))] = 64 << 10
    """Bytes of an answer's head."""
    pool: Annotated[int, BeforeValidator(units.Whole(1, 65_535))] = 256
    """Idle connections that a worker keeps to each endpoint."""
    host: Annotated[str, BeforeValidator(parsers.read_sent_host)] = "pass"
    """The Host that it gets: what the client sent (`pass`), that of the endpoint's URL (`upstream`), or this name."""
    forward_key: Switch = False
    """Whether the upstream is sent the client's API key."""
    health: Health | None = None
    """How its endpoints are probed; by default not."""
    retry: Retry = Retry()
    """When a request is sent again."""
    eject: Annotated[Eject | None, BeforeValidator(parsers.read_unless_off)] = Eject()
    """When an endpoint is left out for a while; `off`: never."""
    breaker: Breaker | None = None
    """When it is asked no more; by default it is always asked."""
    tls: UpstreamTls = UpstreamTls()
    """TLS, for endpoints of https://."""


RouteAuth = Literal[
    "required",
    "optional",
    "none",
    "jwt",
    "certificate",
    "key or jwt",
    "key or certificate",
    "jwt or certificate",
    "key or jwt or certificate",
]
"""What a route wants of who asks, once read."""


class Route(Part):
    """Which requests go to which upstream."""

    name: Name | None = None
    """What usage and metrics call the route; by default host/path as written here."""
    host: Annotated[str, BeforeValidator(parsers.read_host)] | None = None
    """The host that is asked for: exact, or *.suffix; by default any."""
    path: Annotated[str, BeforeValidator(parsers.read_path)]
    """An exact path, or /v1/* for /v1 and all that begins with /v1/."""
    methods: Annotated[frozenset[Annotated[str, BeforeValidator(parsers.read_method)]], Field(min_length=1)] | None = (
        None
    )
    """The methods of the route; by default all."""
    upstream: Name | None = None
    """Where its requests go; not where all of them are answered by a redirect or a fixed answer."""
    auth: Annotated[RouteAuth, BeforeValidator(read_auth)] = "required"
    """What is wanted: a key (required, or key), a token of an issuer (jwt), a client certificate (certificate), any of
    a list of these, a key or a token or nothing (optional), none. `none` does not look at credentials, and forwards
    them."""
    scopes: frozenset[Scope] = frozenset()
    """What a key must be allowed to do: all of these."""
    cost: Count = 1
    """How much a request counts for in the limits of who asks."""
    limits: tuple[RouteLimit, ...] = ()
    """Limits of this route, beside those of who asks."""
    flag: Name | None = None
    """The flag that one must have to see the route; for all others it does not exist."""
    timeouts: RouteTimeouts = RouteTimeouts()
    """How long its requests may take, where that is not what holds for its upstream."""
    networks: Networks | None = None
    """Who may come, beside what is said for all; by default everybody."""
    redirect: Annotated[Redirect, BeforeValidator(read_redirect)] | None = None
    """Where clients are sent instead: `https`, a URL, a path, or {to, status}."""
    respond: Respond | None = None
    """The answer to all requests, whoever asks."""
    rewrite: Rewrite = Rewrite()
    """What is changed in paths and fields on the way to the upstream and back."""
    compress: Annotated[Compress | None, BeforeValidator(read_compress)] = None
    """Which answers are compressed for clients that take it: `on`, or {algorithms, types, min_size}."""
    cors: OwnCors | None = None
    """Which pages of other origins may call the route, in place of what holds for all; `off`: none."""
    upgrade: tuple[Protocol, ...] = ("websocket",)
    """The protocols to which a connection may switch; none: it stays with HTTP."""

    @property
    def label(self) -> str:
        """What usage and metrics call the route: its name, or host/path as configured."""
        return self.name or f"{self.host or ''}{self.path}"

    @property
    def prefix(self) -> str | None:
        """`/v1/` of a route `/v1/*`; None where the path is exact."""
        return self.path[:-1] if self.path.endswith("/*") else None


class Flag(Part):
    """Who sees the routes that name it: whoever is in any of these."""

    percent: Annotated[int, BeforeValidator(units.Whole(0, 100))] = 0
    """A share of the customers, always the same ones; those of a smaller share are among those of a larger."""
    tiers: tuple[Name, ...] = ()
    """All customers of these tiers."""
    customers: tuple[Name, ...] = ()
    """These customers."""


class Overload(Part):
    """When a worker has too much to do. It then turns away requests of the lowest priority first."""

    lag: Duration = 0.05
    """For how long what is ready waits until the worker comes to it."""
    requests: Annotated[int, BeforeValidator(units.Whole(1, 1_000_000))] = 4000
    """How many requests are under way in one worker."""


class Tables(Part):
    """The memory-mapped tables."""

    dir: Folder | None = None
    """Where they are; by default in the state directory."""
    customers: Rows = 200_000
    """How many limits of customers and keys are held at once."""
    addresses: Rows = 200_000
    """How many addresses are held at once."""


class Limits(Part):
    """What one client may ask of the edge."""

    head: Annotated[int, BeforeValidator(units.Size(1024, 1 << 20))] = 32 * 1024
    """Bytes of a request's head."""
    fields: Annotated[int, BeforeValidator(units.Whole(1, 1000))] = 100
    """Field lines of a head."""
    body: Annotated[int | None, BeforeValidator(units.read_body)] = None
    """Bytes of a request's body, or `none` for any number."""
    buffered: Annotated[int, BeforeValidator(units.Size(1, 1 << 50))] = units.BUFFERED_BYTES
    """Bytes of bodies on disk at once, in each worker, for upstreams with `buffer`."""
    header_timeout: Duration = 10.0
    """For the whole head of a request to arrive."""
    body_idle: Duration = 60.0
    """Between two pieces of a request's body."""
    body_rate: Annotated[int | None, BeforeValidator(units.read_body)] = 240
    """Bytes a second of which a body has to come, or to be taken, within each `body_idle`; `none`: any number."""
    keepalive_idle: Duration = 75.0
    """Between two requests of a connection."""
    connections: Annotated[int, BeforeValidator(units.Whole(1, 10_000_000))] = 20_000
    """Clients connected at once, to all workers together."""
    connections_per_ip: Annotated[int | None, BeforeValidator(units.read_concurrency)] = None
    """Of these, from one address, or `none` for any number."""
    connection_rate: Rate | None = None
    """How many connections one address may open in which time; by default any number."""
    ipv6_prefix: Annotated[int, BeforeValidator(units.Whole(40, 128))] = 64
    """How many bits of an IPv6 address count as one address, here and in limits."""
    pipelined: Annotated[int, BeforeValidator(units.Whole(1, 10_000))] = 16
    """Requests of a connection that are read before the one under way is answered."""


class Certificate(Part):
    """A certificate and its private key."""

    cert: File
    """A file with the certificate, and those between it and its root, in PEM."""
    key: File
    """A file with its private key, in PEM and without a password."""


class ListenerTls(Part):
    """TLS towards clients."""

    cert: File | None = None
    """The certificate where there is one: short for `certificates` with one member."""
    key: File | None = None
    """The private key of `cert`."""
    certificates: tuple[Certificate, ...] = ()
    """Several; clients get the one that has the name they ask for (SNI), else the first."""
    client_ca: File | None = None
    """With it, clients must have a certificate that one of those in this file vouches for."""

    @property
    def pairs(self) -> tuple[Certificate, ...]:
        """All certificates, that of the short form first."""
        if self.cert is None or self.key is None:
            return self.certificates
        return (Certificate(cert=self.cert, key=self.key), *self.certificates)


class Listener(Part):
    """An address to listen on."""

    address: Address
    """HOST:PORT."""
    tls: ListenerTls | None = None
    """TLS; by default HTTP without it."""
    authorize: Literal["original", "forwarded", "path"] | None = None
    """In which fields trusted proxies state the requests that they ask about here; nothing is forwarded."""


class AccessLog(Part):
    """Where requests are logged."""

    file: Annotated[Path, BeforeValidator(parsers.read_log)]
    """Where to: a line of JSON for each request is added to this file."""
    sample: Sample = 1.0
    """The share of requests that are logged, such as 1%."""


class EdgeFile(Part):
    """What operators write in edge.yaml and the files that it includes."""

    region: Name = "local"
    """A label such as eu-west, which upstreams see; many edges may share one."""
    listen: Annotated[
        tuple[Annotated[Listener, BeforeValidator(parsers.read_listener)], ...],
        BeforeValidator(parsers.read_one_or_more),
    ] = (Listener(address=parsers.Address("127.0.0.1", 8080)),)
    """Where clients connect: HOST:PORT, {address, tls}, or a list of these."""
    admin: Annotated[Admin, AfterValidator(validate_admin), BeforeValidator(read_admin)] = Admin()
    """Where operators ask for health, metrics and usage: unix (a socket in the state directory), HOST:PORT, or
    {address, tokens, hosts}."""
    workers: Annotated[int, BeforeValidator(units.read_workers)] = Field(default_factory=units.count_cores)
    """How many processes serve; by default `auto`, one for each core."""
    state: Folder = Path("var/edge")
    """Where tables and what else must be kept are."""
    trusted_proxies: tuple[Network, ...] = ()
    """Only these may set X-Forwarded-*; by default nobody."""
    strip: tuple[Annotated[str, BeforeValidator(parsers.read_stripped)], ...] = ()
    """Further fields that pass from trusted proxies only: a name, or PREFIX* for all that begin so."""
    strip_except: tuple[Annotated[str, BeforeValidator(parsers.read_strip_exception)], ...] = ()
    """Fields that services believe of proxies, and that pass from everybody all the same, such as
    X-HTTP-Method-Override."""
    auth: Auth = Auth()
    """Where clients send their keys; by default in X-API-Key or Authorization."""
    hub: Annotated[Hub, BeforeValidator(parsers.read_hub)] = Hub()
    """Where hosts agree on limits: memory:// (this host alone), redis://HOST:PORT, or {url, sync, on_loss, tls}."""
    usage: Usage | None = None
    """Where usage is shipped; by default it stays in the tables."""
    issuers: dict[Name, Issuer] = {}
    """Who issues tokens (JWT) that name a customer, by name."""
    directory: Directory | None = None
    """Where further customers and keys come from; by default there are those of the files alone."""
    cache_key: Annotated[CacheKey, BeforeValidator(read_cache_key)] | None = Field(default=None, repr=False)
    """The key by which the cached directory is encrypted; by default it is not."""
    per_ip: PerIp | None = None
    """The coarse limit for each address, before any key is looked at; by default none."""
    security_headers: Switch = False
    """Whether answers get the headers by which browsers protect their users, where the upstream did not set them."""
    networks: Networks | None = None
    """Which addresses may connect, or be asked for by a trusted proxy; by default all."""
    rules: tuple[RequestRule, ...] = ()
    """What is done with requests that look in a certain way."""
    cors: Cors | None = None
    """Which pages of other origins may call; by default the edge says nothing of it, and upstreams may."""
    access_log: Annotated[AccessLog | None, BeforeValidator(parsers.read_access_log)] = None
    """Where requests are logged: `off`, a file, or {file, sample}."""
    legacy_headers: Switch = False
    """Whether answers have X-RateLimit-Limit, -Remaining and -Reset beside the RateLimit fields."""
    stamp_secret: Annotated[str | None, BeforeValidator(parsers.read_secret)] = Field(default=None, repr=False)
    """With it, upstreams get X-Edge-Signature, by which they know that the edge sent a request."""
    stamp_signature: Literal["v1", "v2"] = "v1"
    """What it covers: v1 the stamps; v2 also the method, the target and the body."""
    meters: dict[Name, Meter] = {"requests": Meter(count="requests")}
    """What is counted for billing; by default `requests`."""
    tiers: dict[Name, Tier] = {}
    """Plans by name. `anonymous` holds requests without a key, by address."""
    customers: dict[Name, Annotated[Customer, AfterValidator(intern_customer)]] = {}
    """Who pays, by name."""
    keys: tuple[Key, ...] = ()
    """The keys that customers send."""
    upstreams: Annotated[dict[Name, Upstream], Field(min_length=1)]
    """The services behind the edge, by name."""
    routes: Annotated[tuple[Route, ...], Field(min_length=1)]
    """Which requests go to which upstream."""
    flags: dict[Name, Flag] = {}
    """Who sees routes that are not for everybody, by name."""
    paths: Paths = Paths()
    """Which paths are refused though they are well-formed."""
    overload: Overload = Overload()
    """When requests are turned away because there are too many."""
    tables: Tables = Tables()
    """The memory-mapped tables."""
    limits: Limits = Limits()
    """What one client may ask of the edge."""
    drain: Wait = 30.0
    """How long requests may go on once the edge is asked to end."""


class Pushed(EdgeFile):
    """A file that says who there is, and need not say what to serve: what `directory push` reads."""

    upstreams: dict[Name, Upstream] = {}
    """The services behind the edge, by name."""
    routes: tuple[Route, ...] = ()
    """Which requests go to which upstream."""


class Settings(EdgeFile):
    """A configuration that passed every check."""

    sha256: str
    """Over the bytes of all files, in the order in which they were read, in hex."""
