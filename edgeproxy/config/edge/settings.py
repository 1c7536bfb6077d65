"""The configuration of an edge: frozen, with every value in its plain unit.

Durations are seconds (float), sizes bytes (int), rates a count and seconds, moments Unix seconds. Each model also
defines the written form: its fields are the fields of the file, and the types in `field_types.py` read their values
(`5s`, `64KiB`, `60/min`). Editors (`schema.py`) and the page of settings (scripts/settings-pages) show descriptions and
docstrings. `references.py` checks facts that concern several parts, for example whether a tier exists.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, WrapValidator

from edgeproxy.config import addresses, hub_settings, parsers, units
from edgeproxy.config.customers import Customer, Flag, intern_customer, read_customers
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
from edgeproxy.config.key_list import Keys, read_keys
from edgeproxy.config.limits import Rated
from edgeproxy.config.meters import Meter
from edgeproxy.config.networks import Networks
from edgeproxy.config.outgoing import PROXY_DESCRIPTION, TRUST, ProxyField, Trust
from edgeproxy.config.part import FieldMark, Part
from edgeproxy.config.tiers import Tier
from edgeproxy.config.tracing import Tracing

Rows = Annotated[int, BeforeValidator(units.Whole(1, 16_000_000))]


class PerIp(Rated):
    """The coarse limit for each address."""

    rate: Rate = Field(
        description="Requests from one address, whatever their keys. Set it well above the requests of one office or "
        "mobile network."
    )


class Overload(Part):
    """Load shedding.

    Near its bounds a worker answers some requests with 503 and `Retry-After`, so that the others do not wait longer.
    Requests of the lowest [`priority`](#tiersname) are shed first. Near the bound of `requests`, the addresses with the
    most concurrent requests come first too. The other addresses may exceed that bound by an eighth.
    """

    lag: Duration = Field(
        default=0.05,
        description="Delay of the worker's event loop that starts shedding if it recurs. Use less if latency matters "
        "more than serving all requests.",
    )
    requests: Annotated[int, BeforeValidator(units.Whole(1, 1_000_000))] = Field(
        default=4000,
        description="Concurrent requests in one worker. From three quarters of it on, some are shed. Use less if "
        "memory is short.",
    )


class Tables(Part):
    """The memory-mapped tables."""

    dir: Folder | None = Field(
        default=None,
        description="Another directory for the tables, such as `/dev/shm/edge` if the disk stalls writes. In memory, a "
        "reboot loses the counts. By default within `state`.",
    )
    customers: Rows = Field(
        default=200_000,
        description="Number of limits of customers and keys in use at once. Set twice the expected number.",
    )
    addresses: Rows = Field(
        default=200_000, description="Number of addresses at once, for `per_ip` and the tier `anonymous`."
    )
    end_users: Rows = Field(
        default=20_000, description="Number of customers' users at once, for limits with [`per`](limits.md#end-users)."
    )


class Limits(Part):
    """Bounds on a client's requests."""

    head: Annotated[int, BeforeValidator(units.Size(1024, 1 << 20))] = Field(
        default=32 * 1024, description="Size of a request's head; above it 431 or 414."
    )
    fields: Annotated[int, BeforeValidator(units.Whole(1, 1000))] = Field(
        default=100, description="Field lines of a head; above it 431."
    )
    body: Annotated[int | None, BeforeValidator(units.read_body)] = Field(
        default=None,
        description="Size of a request's body; above it 413. Bodies are streamed, so a large one costs no memory.",
    )
    buffered: Annotated[int, BeforeValidator(units.Size(1, 1 << 50))] = Field(
        default=units.BUFFERED_BYTES,
        description="Bodies on disk at once, in each worker, for all upstreams with [`buffer`](#upstreamsname) "
        "together; one address (IPv6: a /64) may have half of them. Beyond it 503 with `Retry-After`. The state "
        "directory is on the same disk: leave room for the spool.",
    )
    held: Annotated[int, BeforeValidator(units.Size(1 << 20, 1 << 40))] = Field(
        default=units.HELD_BYTES,
        description="Bytes that each worker holds in memory for clients: bodies and requests read ahead, and answers "
        "that clients do not read. From a quarter of it on, bodies for upstreams with [`buffer`](#upstreamsname) go "
        "to disk. One address or HTTP/2 connection may hold half. Beyond that, the largest holder gets 503, or a "
        "reset within an answer. Use more if many clients are slow: see [memory](bounds.md#memory).",
    )
    remembered: Annotated[int, BeforeValidator(units.Size(1 << 20, 1 << 40))] = Field(
        default=units.REMEMBERED_BYTES,
        description="Bytes that each worker holds in memory for recent customers. Each customer counts as "
        f"{units.CUSTOMER_BYTES / 1024:.1f} KiB, its size in files with one rate and concurrency, and each further "
        f"route of it as {units.FURTHER_ROUTE_BYTES / 1024:.1f} KiB. Customers of a directory, with several limits or "
        "with limits of their own take 3 to 8 times as much, so choose a smaller size for them. The default has room "
        "for 100,000 customers on one route. The oldest customer without a recent request is dropped, and looked up "
        "again at its next request.",
    )
    header_timeout: Duration = Field(default=10.0, description="Time for the whole head to arrive; then 408.")
    body_idle: Duration = Field(default=60.0, description="Time between two pieces of a request's body; then 408.")
    body_rate: Annotated[int | None, BeforeValidator(units.read_body)] = Field(
        default=240,
        description="Minimum bytes per second of a body within each `body_idle`, in either direction. A slower client "
        "gets 408, or its answer is cut. A body without a length is exempt once its upstream answers, or if the "
        "upstream speaks [h2c](grpc.md#deadlines). `none`: one byte in each `body_idle` is enough, and [a slow "
        "client](upstreams.md#slow-clients) may hold an upstream connection for ever.",
    )
    keepalive_idle: Duration = Field(
        default=75.0,
        description="Time between two requests of a connection. Set it longer than the idle timeout of the load "
        "balancer in front of the edge.",
    )
    connections: Annotated[int, BeforeValidator(units.Whole(1, 10_000_000))] = Field(
        default=20_000,
        description="Open client connections of all workers together; beyond it 503, or a closed connection under TLS. "
        "Keep it below `LimitNOFILE` of the service manager.",
    )
    connections_per_ip: Annotated[int | None, BeforeValidator(units.read_concurrency)] = Field(
        default=None,
        description="Open connections of one address (IPv6: a /64); beyond it 429, or a closed connection under TLS. "
        "Set it if clients connect to the edge directly, well above the connections of one office or mobile network: "
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
        description="Bits of an IPv6 address that count as one address, here and in limits. Use fewer if providers "
        "give each customer a `/56` or `/48`.",
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
        description="File that gets the lines. If it is moved away, a new one is created. `/dev/stdout` is the output "
        "of the edge."
    )
    sample: Sample = Field(
        default=1.0,
        description="Share of requests that are logged. Use less if the disk or the reader of the log cannot keep up.",
    )
    mask_addresses: Switch = Field(
        default=False,
        description="Makes lines contain the networks of clients instead of their addresses: `192.0.2.0/24`, "
        "`2001:db8:1::/48`.",
    )


class EdgeFile(Part):
    """Settings of edge.yaml and the files that it includes."""

    region: Annotated[Name, FieldMark.RESTART] = Field(
        default="local",
        description="Label of the region. Upstreams get it as `X-Edge-Region`. Endpoints with the same "
        "[`region`](#upstreamsnameendpoints) are near. Many edges may share one.",
    )
    region_fields: tuple[Literal["X-Edge-Region", "Server-Timing", "Proxy-Status"], ...] = Field(
        default=(),
        description="Answer fields that name the region that executed the request: the endpoint's region, or the "
        "edge's own. An upstream's `X-Edge-Region` is then replaced; the other two fields are lists, and the edge "
        "adds to them. See [executing region](region-routing.md#executing-region). By default none.",
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
        "always exists, and an address if you set one.",
    )
    workers: Annotated[int, BeforeValidator(units.read_workers), FieldMark.RESTART] = Field(
        default_factory=units.count_cores,
        description="Number of processes that serve, each on one core at a time; `auto` is one for each core. Use "
        "fewer if the host has other work to do.",
    )
    state: Annotated[Folder, FieldMark.RESTART] = Field(
        default=Path("var/edge"),
        description="Directory of the tables with all counts, for one edge. Keep it between restarts: it is the only "
        "place of usage that is counted but not yet shipped.",
    )
    trusted_proxies: tuple[Network, ...] = Field(
        default=(),
        description="Networks that may set `X-Forwarded-*` and `X-Request-Id`, such as the load balancer in front of "
        "the edge. The edge drops these fields from all other clients.",
    )
    strip: tuple[Annotated[str, BeforeValidator(readers.read_stripped)], ...] = Field(
        default=(),
        description="Further fields that only `trusted_proxies` may send, in addition to [the table](proxy-fields.md): "
        "a name, or `PREFIX*`. For fields that your services trust in requests from each other.",
    )
    strip_except: tuple[Annotated[str, BeforeValidator(readers.read_strip_exception)], ...] = Field(
        default=(),
        description="Fields of [the table](proxy-fields.md) that every client may send, such as "
        "`X-HTTP-Method-Override`. Fields in `strip` are still dropped.",
    )
    auth: Auth = Field(default=Auth(), description="Places where clients send their keys.")
    hub: Annotated[Hub, BeforeValidator(hub_settings.read_hub)] = Field(
        default=Hub(),
        description="Redis that lets several hosts share limits; `memory://` is this host alone. A change between "
        "`memory://` and a Redis needs a restart.",
    )
    usage: Usage | None = Field(
        default=None,
        description="Collector that gets the counts by [shipping](shipping.md). By default they stay in the tables.",
    )
    issuers: dict[Name, Issuer] = Field(
        default={}, description="Issuers of [tokens](jwt.md) (JWT) that name a customer, for routes with `auth: jwt`."
    )
    directory: Directory | None = Field(
        default=None,
        description="[Customer directory](directory.md): further customers and keys, from the hub or the collector. By "
        "default there are only those in the files.",
    )
    cache_key: Annotated[CacheKey, BeforeValidator(read_cache_key)] | None = Field(
        default=None,
        repr=False,
        description="Key that encrypts `directory.db`: 32 bytes in Base64 or hex, best from the environment. By "
        "default the file is not encrypted.",
    )
    residency: dict[ResidencyName, Residency] = Field(
        default={},
        description="[Residencies](residency.md) of customers, by name, instead of `usage` and `directory`. Each "
        "customer's usage goes to the collector of its own residency. By default there is one collector.",
    )
    per_ip: PerIp | None = Field(
        default=None,
        description="Coarse limit for each address, before any key is looked up: against floods of wrong keys. By "
        "default none.",
    )
    security_headers: Switch | None = Field(
        default=None,
        description="Adds to answers of upstreams the [fields that make browsers protect their "
        "users](security-headers.md), unless the upstream has set them: `X-Content-Type-Options`, `X-Frame-Options`, "
        "`Content-Security-Policy` (`frame-ancestors` only), `X-XSS-Protection`, `Referrer-Policy`, and over TLS "
        "`Strict-Transport-Security`. By default only the edge's own answers have them; `false` removes them there "
        "too.",
    )
    networks: Networks | None = Field(
        default=None,
        description="Addresses that may connect, directly or through a trusted proxy: see [who may come](access.md). "
        "By default all.",
    )
    rules: tuple[RequestRule, ...] = Field(
        default=(), description="Rules that deny, log or limit requests by their content."
    )
    cors: Cors | None = Field(
        default=None,
        description="Pages of other origins that may call: see [browsers](browsers.md). It applies to each route "
        "without its own `cors`. By default the edge adds nothing, and upstreams may.",
    )
    errors: Annotated[Errors, BeforeValidator(read_errors)] | None = Field(
        default=None,
        description="[Bodies of errors](errors.md) from the edge itself, for requests that match no route, and for "
        "routes without their own `errors`. By default `problem`, or the errors of the first route if all routes to "
        "upstreams have errors of `openai` or `anthropic`.",
    )
    access_log: Annotated[AccessLog | None, BeforeValidator(readers.read_access_log)] = Field(
        default=None, description="Log with one line of JSON for each request."
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
        description='Secret that signs the edge\'s requests, best from the environment: `"${STAMP_SECRET:-}"`. '
        "Upstreams get `X-Edge-Signature: t=UNIX,v1=HEX`, an HMAC-SHA-256 over "
        "`UNIX.request-id.customer.tier.region`. Without a key the customer is `-`, and the tier is `anonymous`, or "
        "`-` if there is no such tier. By default, or if empty, nothing is signed.",
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
        description="Meters: the quantities counted for billing. By default only `requests`.",
    )
    tiers: dict[Name, Tier] = Field(
        default={}, description="Plans. The tier `anonymous` limits requests without a key, by address."
    )
    customers: Annotated[
        dict[Name, Annotated[Customer, AfterValidator(intern_customer)]], WrapValidator(read_customers)
    ] = Field(default={}, description="Customers, by name.")
    keys: Annotated[Keys, WrapValidator(read_keys)] = Field(default=(), description="Keys that customers send.")
    upstreams: Annotated[dict[Name, Upstream], Field(min_length=1), FieldMark.FILLED] = Field(
        description="Services behind the edge, by name."
    )
    routes: Annotated[tuple[Route, ...], Field(min_length=1), FieldMark.FILLED] = Field(
        description="Routes: they lead requests to upstreams."
    )
    flags: dict[Name, Flag] = Field(
        default={}, description="Flags: some customers see [routes](#routes) that others do not."
    )
    paths: Paths = Field(default=Paths(), description="Well-formed paths that are refused.")
    overload: Overload = Field(default=Overload(), description="Bounds that make a worker shed requests.")
    tables: Annotated[Tables, FieldMark.RESTART] = Field(default=Tables(), description="Memory-mapped tables.")
    limits: Limits = Field(default=Limits(), description="Bounds on one client's requests.")
    trust: Trust = Field(default=Trust(), description=TRUST)
    proxy: ProxyField | None = Field(default=None, repr=False, description=PROXY_DESCRIPTION)
    drain: Wait = Field(
        default=30.0,
        description="Time for open requests to end after SIGTERM. Use more for long uploads or streams. The service "
        "manager must wait at least as long.",
    )

    def list_usages(self) -> dict[str, Usage]:
        """Return the usage settings, by their paths in the file."""
        if self.residency:
            return {f"residency.{name}.usage": residency.usage for name, residency in self.residency.items()}
        return {} if self.usage is None else {"usage": self.usage}


class Pushed(EdgeFile):
    """A file for `edgeproxy directory push`, with customers and without required routes."""

    upstreams: dict[Name, Upstream] = Field(default={}, description="Services behind the edge, by name.")
    routes: tuple[Route, ...] = Field(default=(), description="Routes: they lead requests to upstreams.")


class EdgeSettings(EdgeFile):
    """Settings of an edge that passed every check."""

    sha256: str = Field(description="Hash over the bytes of all files in the order of reading, in hex.")
