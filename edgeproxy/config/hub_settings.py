"""The hub (Redis), which synchronises the hosts of a region: its settings and its URL."""

import re
from collections.abc import Mapping
from typing import Annotated, Literal, NamedTuple
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field

from edgeproxy.config import units
from edgeproxy.config.addresses import Address, is_loopback, split_address
from edgeproxy.config.forms import PORT, build_any_of, build_text, written
from edgeproxy.config.parsers import read_list
from edgeproxy.config.part import Part
from edgeproxy.config.tls import OutwardTls
from edgeproxy.config.units import value_error
from edgeproxy.config.url_secrets import read_secret_url

MEMORY = "memory://"
"""The hub of hosts that share with no other host."""
REDIS = ("redis", "rediss")
CLUSTERS = {"redis+cluster": "redis", "rediss+cluster": "rediss"}
"""Schemes of clusters, and the scheme of one of their nodes."""
SENTINELS = {"redis+sentinel": "redis", "rediss+sentinel": "rediss"}
"""Schemes of a Redis with Sentinels, and the scheme of its primary."""
REDIS_PORT, SENTINEL_PORT = 6379, 26379
SERVICE = r"[A-Za-z0-9._-]{1,64}"
"""The name of a service of Sentinels, as Redis permits it."""
REDIS_AT = rf"(\[[0-9A-Fa-f:.]+\]|[^/?#@:,\[\]\s]+)({PORT})?"
HUB = build_text(
    "hub URL",
    rf"memory://|rediss?://([^/?#@\s]*@)?{REDIS_AT}(/[0-9]{{0,5}})?"
    rf"|rediss?\+cluster://([^/?#@\s]*@)?{REDIS_AT}(,{REDIS_AT})*/?"
    rf"|rediss?\+sentinel://([^/?#@\s]*@)?{REDIS_AT}(,{REDIS_AT})*/{SERVICE}(/[0-9]{{0,5}})?",
    "memory://",
    "redis://localhost:6379/0",
    "redis+cluster://10.0.0.5:7000,10.0.0.6:7000",
    "redis+sentinel://10.0.0.5,10.0.0.6,10.0.0.7/hub",
)
A_HUB = (
    "memory://, redis://HOST:PORT, rediss://USER:PASSWORD@HOST:PORT/DATABASE, redis+cluster://HOST:PORT,HOST:PORT or "
    "redis+sentinel://HOST:PORT,HOST:PORT/SERVICE"
)


@written(HUB)
def read_hub_url(value: object) -> str:
    """Read the URL of a hub: `memory://`, or `redis[s]://[USER[:PASSWORD]@]HOST:PORT/DATABASE` with optional parts.

    It may also be `redis[s]+cluster://[USER[:PASSWORD]@]HOST:PORT,HOST:PORT…`, or in this form `redis[s]+sentinel`,
    followed by `/SERVICE[/DATABASE]`. Errors never show the URL, because an invalid one may have a password anywhere.
    """
    written = read_secret_url(value, A_HUB)
    hint = A_HUB
    if written.lower() == MEMORY:
        return MEMORY
    scheme, _, rest = written.partition("://")
    scheme = scheme.lower()
    if scheme not in (*REDIS, *CLUSTERS, *SENTINELS) or not rest:
        raise value_error("is not the URL of a hub", hint)
    if "?" in rest or "#" in rest:
        raise value_error("has a ? or a #", hint)
    netloc, _, path = rest.partition("/")
    who, _, where = netloc.rpartition("@")
    at = f"{who}@" if who else ""
    try:
        urlsplit(f"redis://{at}")
    except ValueError:
        raise value_error("is not a URL", hint) from None
    if scheme in CLUSTERS:
        if path:
            raise value_error("has a path, and a cluster has no databases", hint)
        return f"{scheme}://{at}{_read_redis_addresses(where, REDIS_PORT, hint)}"
    if scheme in SENTINELS:
        service, _, path = path.partition("/")
        if re.fullmatch(SERVICE, service) is None or not re.fullmatch("[0-9]{0,5}", path):
            raise value_error("has no name of a service, or a database that is no number", hint)
        return f"{scheme}://{at}{_read_redis_addresses(where, SENTINEL_PORT, hint)}/{service}/{int(path or 0)}"
    if not re.fullmatch("[0-9]{0,5}", path):
        raise value_error("has a path that is not the number of a database", hint)
    return f"{scheme}://{at}{_read_redis_address(where, REDIS_PORT, hint)}/{int(path or 0)}"


def _read_redis_addresses(written: str, port: int, hint: str) -> str:
    """Read several unique hosts, and return them with their ports."""
    hosts = [_read_redis_address(host, port, hint) for host in written.split(",")]
    if len(set(hosts)) < len(hosts):
        raise value_error("names a node twice", "leave one of them out")
    return ",".join(map(str, hosts))


def _read_redis_address(written: str, port: int, hint: str) -> Address:
    """Read a host and a port, which defaults to this one."""
    address = split_address(written) or split_address(f"{written}:{port}")
    if address is None or address.port == 0:
        raise value_error("has no host, or a port that cannot be", hint)
    return address


class HubUrl(NamedTuple):
    """The parts of a hub's URL.

    `who` is the user and the password. `where` is HOST:PORT, or several for clusters and Sentinels. `path` is the
    database, or SERVICE/DATABASE for Sentinels.
    """

    scheme: str
    who: str
    where: tuple[str, ...]
    path: str

    @classmethod
    def parse(cls, url: str) -> "HubUrl":
        """Split a URL from `read_hub_url`."""
        scheme, _, rest = url.partition("://")
        netloc, _, path = rest.partition("/")
        who, _, where = netloc.rpartition("@")
        return cls(scheme, who, tuple(where.split(",")), path)


def has_password(url: str) -> bool:
    """Return whether the URL of a hub has a password."""
    return bool(HubUrl.parse(url).who.partition(":")[2])


def remove_password(url: str) -> str:
    """Return the public URL of a hub: with the user's name, without the password."""
    who = HubUrl.parse(url).who
    user = who.partition(":")[0]
    return url.replace(f"://{who}@", f"://{user}@" if user else "://", 1) if who else url


def is_in_clear(url: str) -> bool:
    """Return whether the connection to a hub has no TLS."""
    return url.partition("://")[0].partition("+")[0] == "redis"


def is_local_hub(url: str) -> bool:
    """Return whether the URL of a hub names only this host."""
    addresses = map(split_address, HubUrl.parse(url).where)
    return all(address is not None and is_loopback(address.host) for address in addresses)


@written(lambda inner: build_any_of(HUB, inner), lambda hub: str(hub.url))
def read_hub(value: object) -> object:
    """Read a hub: its URL, or a mapping with the URL or the Sentinels."""
    if isinstance(value, str):
        return {"url": value}
    if isinstance(value, dict) and value.get("sentinel"):
        return value | {"url": _join_sentinels(value)}
    return value


def _join_sentinels(hub: Mapping[str, object]) -> str:
    """Return the URL of a hub with Sentinels, written as a mapping. `read_hub_url` checks it."""
    scheme, _, rest = str(hub.get("url", f"redis://{hub.get('service', '')}")).partition("://")
    who, at, service = rest.rpartition("@")
    hosts = hub["sentinel"]
    where = ",".join(map(str, hosts)) if isinstance(hosts, list | tuple) else str(hosts)
    return f"{scheme}+sentinel://{who}{at}{where}/{service}"


class Hub(Part):
    """The hub: a Redis or Valkey that lets hosts share limits. A URL alone is a hub with the defaults below.

    ```yaml
    hub: {url: "rediss://edge:${REDIS_PASSWORD:-}@redis.example.com:6379/0", on_loss: share, tls: {ca: certs/ca.pem}}
    ```

    Requests do not wait for the hub, except as [`sync`](#tiersnamelimits) of a limit says.
    """

    url: Annotated[str, BeforeValidator(read_hub_url)] = Field(
        default=MEMORY,
        repr=False,
        description="`redis://` or `rediss://` (TLS) and `[USER[:PASSWORD]@]HOST[:PORT][/DATABASE]`, by default port "
        "6379 and database 0. `redis+cluster://` or `rediss+cluster://` and some nodes, `HOST[:PORT],HOST[:PORT]`; "
        "these lead to the others. `redis+sentinel://` or `rediss+sentinel://` and some Sentinels, then `/SERVICE`. "
        "Take the password from the environment, escaped as in URLs: `%2F` for `/`. `check` warns of a password to "
        "another host without TLS.",
    )
    sentinel: Annotated[tuple[str, ...], BeforeValidator(read_list)] = Field(
        default=(),
        description="Redis Sentinels, `HOST[:PORT]` each, by default port 26379. The hub is the primary that they "
        "name. They have no password of their own.",
    )
    service: str | None = Field(
        default=None,
        description="Name of the service that the Sentinels monitor. User, password, TLS and database are in `url`, "
        "with this name instead of the host: `rediss://USER:PASSWORD@SERVICE/0`.",
    )
    sync: Annotated[float, BeforeValidator(units.Time(0.1, 10.0))] = Field(
        default=1.0,
        description="Time after which the hub gets the count of a limit in use: sooner while the limit is nearly used "
        "up, 2.4 times as long if no other host uses it. A longer time needs fewer calls, but the hosts' counts "
        "differ by more.",
    )
    on_loss: Literal["share", "full", "deny"] = Field(
        default="share",
        description="Requests that this host lets through without the hub: its `share` of each limit, as the hub last "
        "knew it or an equal part if that is more; the `full` limit, as if the host were alone; or no requests under "
        "a limit or `concurrency` (`deny`). Limits with `sync: strict` let nothing through; quotas go on with the "
        "last known counts. See [several hosts](limits.md#several-hosts).",
    )
    tls: OutwardTls = Field(
        default=OutwardTls(),
        description="TLS towards a hub with `rediss://`, `rediss+cluster://` or `rediss+sentinel://`, and towards its "
        "Sentinels. An error with any other scheme.",
    )

    @property
    def is_shared(self) -> bool:
        """True if other hosts may share it."""
        return self.url != MEMORY

    @property
    def name(self) -> str:
        """The URL without its password, for people and for processes that do not connect."""
        return remove_password(self.url)

    @property
    def is_exposed(self) -> bool:
        """True if others on the network could read the password: the hub is on another host and has no TLS."""
        return is_in_clear(self.url) and has_password(self.url) and not is_local_hub(self.url)
