"""The configuration of an edge as its rooms see it: frozen, every value in its plain unit.

Durations are seconds (float), sizes bytes (int), rates a count and seconds, moments Unix seconds. Each model is also
what operators write: its fields are those of the file, and the types of `field_types.py` read the written form (`5s`,
`64KiB`, `60/min`). A docstring below a field is what editors show of it (`schema.py`). What no single part can know,
such as whether a tier exists, is checked by `references.py`.
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
from edgeproxy.config.edge.issuers import Issuer
from edgeproxy.config.edge.listeners import Listener
from edgeproxy.config.edge.paths import Paths
from edgeproxy.config.edge.routes import Route
from edgeproxy.config.edge.rules import RequestRule
from edgeproxy.config.edge.timeouts import Duration
from edgeproxy.config.edge.upstreams import Upstream
from edgeproxy.config.edge.usage import Usage
from edgeproxy.config.field_types import Folder, Name, Network, Rate, Sample, Switch, Wait
from edgeproxy.config.hub_settings import Hub
from edgeproxy.config.limits import Rated
from edgeproxy.config.meters import Meter
from edgeproxy.config.networks import Networks
from edgeproxy.config.part import Part
from edgeproxy.config.tiers import Tier

Rows = Annotated[int, BeforeValidator(units.Whole(1, 16_000_000))]


class PerIp(Rated):
    """The coarse limit per address, the first layer of all."""


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


class AccessLog(Part):
    """Where requests are logged."""

    file: Annotated[Path, BeforeValidator(readers.read_log)]
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
    ] = (Listener(address=addresses.Address("127.0.0.1", 8080)),)
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
    strip: tuple[Annotated[str, BeforeValidator(readers.read_stripped)], ...] = ()
    """Further fields that pass from trusted proxies only: a name, or PREFIX* for all that begin so."""
    strip_except: tuple[Annotated[str, BeforeValidator(readers.read_strip_exception)], ...] = ()
    """Fields that services believe of proxies, and that pass from everybody all the same, such as
    X-HTTP-Method-Override."""
    auth: Auth = Auth()
    """Where clients send their keys; by default in X-API-Key or Authorization."""
    hub: Annotated[Hub, BeforeValidator(hub_settings.read_hub)] = Hub()
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
    access_log: Annotated[AccessLog | None, BeforeValidator(readers.read_access_log)] = None
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
