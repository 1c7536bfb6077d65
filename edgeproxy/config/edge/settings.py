"""The configuration of an edge: frozen, with every value in its plain unit.

Durations are seconds (float), sizes bytes (int), rates a count and seconds, moments Unix seconds. Each model also
defines the written form: its fields are the fields of the file, and the types in `field_types.py` read their values
(`5s`, `64KiB`, `60/min`). Editors (`schema.py`) and the page of settings (scripts/settings-pages) show descriptions and
docstrings. `references.py` checks facts that concern several parts, for example whether a tier exists.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from edgeproxy.config import addresses, hub_settings, parsers, units
from edgeproxy.config.customers import Customer, Flag, Key, intern_customer
from edgeproxy.config.edge import readers
from edgeproxy.config.edge.admin import Admin, read_admin, validate_admin
from edgeproxy.config.edge.auth import Auth
from edgeproxy.config.edge.cors import Cors
from edgeproxy.config.edge.directory_settings import CacheKey, Directory, read_cache_key
from edgeproxy.config.edge.error_bodies import Errors, read_errors
from edgeproxy.config.edge.issuers import Issuer
from edgeproxy.config.edge.listeners import Listener
from edgeproxy.config.edge.paths import Paths
from edgeproxy.config.edge.residency import Residency
from edgeproxy.config.edge.routes import Route
from edgeproxy.config.edge.rules import RequestRule
from edgeproxy.config.edge.timeouts import Duration
from edgeproxy.config.edge.upstreams import Upstream
from edgeproxy.config.edge.usage import Usage
from edgeproxy.config.field_types import Folder, Name, Network, Rate, ResidencyName, Sample, Switch, Wait
from edgeproxy.config.hub_settings import Hub
from edgeproxy.config.limits import Rated
from edgeproxy.config.meters import Meter
from edgeproxy.config.networks import Networks
from edgeproxy.config.outgoing import PROXY_DESCRIPTION, TRUST, ProxyField, Trust
from edgeproxy.config.part import FieldMark, Part
from edgeproxy.config.tiers import Tier
from edgeproxy.config.tracing import Tracing

Rows = Annotated[int, BeforeValidator(units.Whole(1, 16_000_000))]


class PerIp(Rated):
    """The coarse limit of an address."""

    rate: Rate = Field(
        description="Requests of one address, whatever their keys. Well above what one office or mobile network sends."
    )


class Overload(Part):
    """Load shedding.

    Near its bounds a worker answers some requests with 503 and `Retry-After`, before the rest wait longer. Requests of
    the lowest [`priority`](#tiersname) are shed first, and near the bound of requests the addresses with most requests
    under way. An address gets at most seven eighths of that bound.
    """

    lag: Duration = Field(
        default=0.05,
        description="Delay of the worker's event loop, again and again. Less if latency matters more than serving all.",
    )
    requests: Annotated[int, BeforeValidator(units.Whole(1, 1_000_000))] = Field(
        default=4000,
        description="Requests under way in one worker. From three quarters on some are shed. Less if memory is short.",
    )


class Tables(Part):
    """The memory-mapped tables."""

    dir: Folder | None = Field(
        default=None,
        description="Another directory for the tables, such as `/dev/shm/edge` if the disk stalls writes. In memory "
        "the counts go at a reboot. By default within `state`.",
    )
    customers: Rows = Field(
        default=200_000, description="Limits of customers and keys at once. Twice as many as you expect."
    )
    addresses: Rows = Field(default=200_000, description="Addresses at once, for `per_ip` and the tier `anonymous`.")
    end_users: Rows = Field(
        default=20_000, description="Users of customers at once, for limits with [`per`](limits.md#end-users)."
    )


class Limits(Part):
    """Bounds on what a client may send."""

    head: Annotated[int, BeforeValidator(units.Size(1024, 1 << 20))] = Field(
        default=32 * 1024, description="Size of a request's head; above it 431 or 414."
    )
    fields: Annotated[int, BeforeValidator(units.Whole(1, 1000))] = Field(
        default=100, description="Field lines of a head; above it 431."
    )
    body: Annotated[int | None, BeforeValidator(units.read_body)] = Field(
        default=None,
        description="Size of a request's body; above it 413. Bodies stream, so a large one costs no memory.",
    )
    buffered: Annotated[int, BeforeValidator(units.Size(1, 1 << 50))] = Field(
        default=units.BUFFERED_BYTES,
        description="Bodies on disk at once, in each worker, for all upstreams with [`buffer`](#upstreamsname) "
        "together, and half of it for one address (IPv6: a /64); beyond it 503 with `Retry-After`. The state directory "
        "is on the same disk: leave room for the spool.",
    )
    held: Annotated[int, BeforeValidator(units.Size(1 << 20, 1 << 40))] = Field(
        default=units.HELD_BYTES,
        description="Bytes that each worker holds in memory for clients: bodies and requests read ahead, answers that "
        "clients do not take. From a quarter of it on bodies for upstreams with [`buffer`](#upstreamsname) go to disk. "
        "An address or an HTTP/2 connection may hold half; whoever holds most beyond that gets 503, or a reset "
        "within an answer. More if many clients are slow: see [memory](bounds.md#memory).",
    )
    remembered: Annotated[int, BeforeValidator(units.Size(1 << 20, 1 << 40))] = Field(
        default=units.REMEMBERED_BYTES,
        description="Bytes that each worker holds in memory for customers who asked lately: some 5 KiB for each "
        "on each route. Who asked longest ago is forgotten, and looked up again at the next request.",
    )
    header_timeout: Duration = Field(default=10.0, description="Time for the whole head to arrive; then 408.")
    body_idle: Duration = Field(default=60.0, description="Time between two pieces of a request's body; then 408.")
    body_rate: Annotated[int | None, BeforeValidator(units.read_body)] = Field(
        default=240,
        description="Bytes a second that a body must make within each `body_idle`, in either direction; a slower "
        "client gets 408, or its answer is cut. A body without a length is exempt once its upstream answers, or if the "
        "upstream speaks [h2c](grpc.md#deadlines). `none`: one byte each time is enough, and [a slow "
        "client](upstreams.md#slow-clients) may hold an upstream connection for ever.",
    )
    keepalive_idle: Duration = Field(
        default=75.0,
        description="Time between two requests of a connection. Longer than that of the load balancer in front of the "
        "edge.",
    )
    connections: Annotated[int, BeforeValidator(units.Whole(1, 10_000_000))] = Field(
        default=20_000,
        description="Open client connections of all workers together; beyond it 503, or a closed connection under "
        "TLS. Within `LimitNOFILE` of the service manager.",
    )
    connections_per_ip: Annotated[int | None, BeforeValidator(units.read_concurrency)] = Field(
        default=None,
        description="Open connections of one address (IPv6: a /64); beyond it 429, or a closed connection under TLS. "
        "Set it if clients connect to the edge themselves, well above what one office or mobile network opens: "
        "without it one address may take all `connections`. `trusted_proxies` are exempt; any other load balancer or "
        "NAT is one address.",
    )
    connection_rate: Rate | None = Field(
        default=None,
        description="New connections of one address in a time; beyond it 429, or a closed connection under TLS. "
        "`trusted_proxies` are exempt. By default any number.",
    )
    ipv6_prefix: Annotated[int, BeforeValidator(units.Whole(40, 128))] = Field(
        default=64,
        description="Bits of an IPv6 address that count as one address, here and in limits. Less if providers give "
        "each customer a `/56` or `/48`.",
    )
    pipelined: Annotated[int, BeforeValidator(units.Whole(1, 10_000))] = Field(
        default=16, description="Requests of a connection that are read before the current one is answered."
    )


class AccessLog(Part):
    """The access log.

    ```yaml
    access_log: {file: var/access.log, sample: 10%}
    ```
    """

    file: Annotated[Path, BeforeValidator(readers.read_log)] = Field(
        description="File to which lines are added; if it is moved away, a new one is created. `/dev/stdout` is the "
        "output of the edge."
    )
    sample: Sample = Field(
        default=1.0,
        description="Share of requests that are logged. Less if the disk or the reader of the log cannot keep up.",
    )
    mask_addresses: Switch = Field(
        default=False,
        description="Whether lines have the networks of clients instead of their addresses: `192.0.2.0/24`, "
        "`2001:db8:1::/48`.",
    )


class EdgeFile(Part):
    """Settings of edge.yaml and the files that it includes."""

    region: Annotated[Name, FieldMark.RESTART] = Field(
        default="local",
        description="Label of the region, which upstreams get as `X-Edge-Region`. Endpoints with the same "
        "[`region`](#upstreamsnameendpoints) are near. Many edges may share one.",
    )
    region_fields: tuple[Literal["X-Edge-Region", "Server-Timing", "Proxy-Status"], ...] = Field(
        default=(),
        description="Fields of answers that name the region in which a request was executed: that of the endpoint, or "
        "the edge's own. An upstream's `X-Edge-Region` is replaced then; the other two are lists, to which the edge "
        "adds. See [executing region](region-routing.md#executing-region). By default none.",
    )
    listen: Annotated[
        tuple[Annotated[Listener, BeforeValidator(parsers.read_listener)], ...],
        BeforeValidator(parsers.read_one_or_more),
        FieldMark.RESTART,
    ] = Field(
        default=(Listener(address=addresses.Address("127.0.0.1", 8080)),),
        description="Addresses where clients connect.",
    )
    admin: Annotated[Admin, AfterValidator(validate_admin), BeforeValidator(read_admin), FieldMark.RESTART] = Field(
        default=Admin(),
        description="Listener for health, metrics, status, limits and usage: a socket in the state directory, which "
        "always exists, and an address if one is given.",
    )
    workers: Annotated[int, BeforeValidator(units.read_workers), FieldMark.RESTART] = Field(
        default_factory=units.count_cores,
        description="Processes that serve, each on one core at a time; `auto` is one for each core. Fewer where the "
        "host has other work to do.",
    )
    state: Annotated[Folder, FieldMark.RESTART] = Field(
        default=Path("var/edge"),
        description="Directory of the tables with all counts, for one edge. Keep it between restarts: usage that is "
        "counted and not yet shipped is nowhere else.",
    )
    trusted_proxies: tuple[Network, ...] = Field(
        default=(),
        description="Networks that may set `X-Forwarded-*` and `X-Request-Id`, such as the load balancer in front of "
        "the edge. The edge drops these fields from all others.",
    )
    strip: tuple[Annotated[str, BeforeValidator(readers.read_stripped)], ...] = Field(
        default=(),
        description="Further fields that only `trusted_proxies` may send, beside [those of the "
        "table](proxy-fields.md): a name, or `PREFIX*`. For fields by which your services trust each other.",
    )
    strip_except: tuple[Annotated[str, BeforeValidator(readers.read_strip_exception)], ...] = Field(
        default=(),
        description="Fields of [the table](proxy-fields.md) that every client may send, such as "
        "`X-HTTP-Method-Override`. Fields in `strip` are dropped all the same.",
    )
    auth: Auth = Field(default=Auth(), description="Places where clients send their keys.")
    hub: Annotated[Hub, BeforeValidator(hub_settings.read_hub)] = Field(
        default=Hub(),
        description="Redis by which several hosts agree on limits; `memory://` is this host alone. A change between "
        "`memory://` and a Redis needs a restart.",
    )
    usage: Usage | None = Field(
        default=None,
        description="Collector to which counts are [shipped](shipping.md). By default they stay in the tables.",
    )
    issuers: dict[Name, Issuer] = Field(
        default={}, description="Issuers of [tokens](jwt.md) (JWT) that name a customer, for routes with `auth: jwt`."
    )
    directory: Directory | None = Field(
        default=None,
        description="[Customer directory](directory.md): further customers and keys, from the hub or the collector. "
        "By default those of the files are all.",
    )
    cache_key: Annotated[CacheKey, BeforeValidator(read_cache_key)] | None = Field(
        default=None,
        repr=False,
        description="Key that encrypts `directory.db`: 32 bytes in Base64 or hex, best from the environment. By "
        "default the file is not encrypted.",
    )
    residency: dict[ResidencyName, Residency] = Field(
        default={},
        description="[Residencies](residency.md) of customers, by name, in place of `usage` and `directory`: each "
        "customer's usage goes to the collector of its own. By default there is one collector.",
    )
    per_ip: PerIp | None = Field(
        default=None,
        description="Coarse limit for each address, before any key is looked up: against floods of wrong keys. By "
        "default none.",
    )
    security_headers: Switch | None = Field(
        default=None,
        description="Adds to answers of upstreams the [fields by which browsers protect their users]"
        "(security-headers.md), each unless the upstream has set it: `X-Content-Type-Options`, `X-Frame-Options`, "
        "`Content-Security-Policy` (`frame-ancestors` only), `X-XSS-Protection`, `Referrer-Policy`, and over TLS "
        "`Strict-Transport-Security`. By default the edge's own answers alone have them, and `false` leaves them out "
        "there, too.",
    )
    networks: Networks | None = Field(
        default=None,
        description="Addresses that may connect, or for which a trusted proxy may ask: see [who may come](access.md). "
        "By default all.",
    )
    rules: tuple[RequestRule, ...] = Field(
        default=(), description="Rules that deny, log or limit requests by what is in them."
    )
    cors: Cors | None = Field(
        default=None,
        description="Pages of other origins that may call: see [browsers](browsers.md). Holds for each route without "
        "a `cors` of its own. By default the edge adds nothing, and upstreams may.",
    )
    errors: Annotated[Errors, BeforeValidator(read_errors)] | None = Field(
        default=None,
        description="[Bodies of errors](errors.md) of the edge's own, for requests of no route and of routes without "
        "`errors` of their own. By default `problem`.",
    )
    access_log: Annotated[AccessLog | None, BeforeValidator(readers.read_access_log)] = Field(
        default=None, description="File that gets a line of JSON for each request."
    )
    tracing: Tracing | None = Field(
        default=None,
        description="[Tracing](tracing.md) with OpenTelemetry. By default nothing is traced.",
    )
    legacy_headers: Switch = Field(
        default=False,
        description="Adds `X-RateLimit-Limit`, `-Remaining` and `-Reset` to answers, for clients that do not know the "
        "RateLimit fields.",
    )
    stamp_secret: Annotated[str | None, BeforeValidator(parsers.read_secret)] = Field(
        default=None,
        repr=False,
        description='Secret with which the edge signs requests, best from the environment: `"${STAMP_SECRET:-}"`. '
        "Upstreams get `X-Edge-Signature: t=UNIX,v1=HEX`, an HMAC-SHA-256 over "
        "`UNIX.request-id.customer.tier.region`. Without a key the customer is `-`, and the tier `anonymous`, or `-` "
        "if there is no such tier. By default, or if empty, nothing is signed.",
    )
    stamp_signature: Literal["v1", "v2"] = Field(
        default="v1",
        description="Content that `X-Edge-Signature` covers. A `v1` signature fits any request of the customer. `v2` "
        "adds `v2=HEX,body=HASH`: an HMAC-SHA-256 over eight lines, each with a line feed: `UNIX`, request id, "
        "customer, tier, region, method, target as the upstream gets it, `HASH`. `HASH` is the SHA-256 of the body in "
        "hex, or `-` if the edge sent the head before it had the whole body. Upstreams hash the body and compare.",
    )
    meters: dict[Name, Meter] = Field(
        default={"requests": Meter(count="requests")},
        description="Meters: what is counted for billing. By default `requests` alone.",
    )
    tiers: dict[Name, Tier] = Field(
        default={}, description="Plans. The tier `anonymous` holds requests without a key, by address."
    )
    customers: dict[Name, Annotated[Customer, AfterValidator(intern_customer)]] = Field(
        default={}, description="Customers, by name."
    )
    keys: tuple[Key, ...] = Field(default=(), description="Keys that customers send.")
    upstreams: Annotated[dict[Name, Upstream], Field(min_length=1), FieldMark.FILLED] = Field(
        description="Services behind the edge, by name."
    )
    routes: Annotated[tuple[Route, ...], Field(min_length=1), FieldMark.FILLED] = Field(
        description="Routes: which requests go to which upstream."
    )
    flags: dict[Name, Flag] = Field(
        default={}, description="Flags of customers who see [routes](#routes) that others do not."
    )
    paths: Paths = Field(default=Paths(), description="Well-formed paths that are refused.")
    overload: Overload = Field(default=Overload(), description="Bounds above which a worker sheds requests.")
    tables: Annotated[Tables, FieldMark.RESTART] = Field(default=Tables(), description="Memory-mapped tables.")
    limits: Limits = Field(default=Limits(), description="Bounds on what one client may send.")
    trust: Trust = Field(default=Trust(), description=TRUST)
    proxy: ProxyField | None = Field(default=None, repr=False, description=PROXY_DESCRIPTION)
    drain: Wait = Field(
        default=30.0,
        description="Time that open requests have to end after SIGTERM. Longer for long uploads or streams; the "
        "service manager must wait at least as long.",
    )


class Pushed(EdgeFile):
    """A file for `edgeproxy directory push`, with customers and without required routes."""

    upstreams: dict[Name, Upstream] = Field(default={}, description="Services behind the edge, by name.")
    routes: tuple[Route, ...] = Field(default=(), description="Routes: which requests go to which upstream.")


class EdgeSettings(EdgeFile):
    """Settings of an edge that passed every check."""

    sha256: str = Field(description="Over the bytes of all files in the order of reading, in hex.")
