"""The hub (Redis), on which the hosts of a region agree: its settings, and its URL."""

import re
from typing import Annotated, Literal, NamedTuple
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field

from edgeproxy.config import units
from edgeproxy.config.addresses import Address, is_loopback, split_address
from edgeproxy.config.forms import PORT, build_any_of, build_text, written
from edgeproxy.config.part import Part
from edgeproxy.config.tls import OutwardTls
from edgeproxy.config.units import read_text, value_error

MEMORY = "memory://"
"""The hub of those who share with nobody."""
REDIS = ("redis", "rediss")
CLUSTERS = {"redis+cluster": "redis", "rediss+cluster": "rediss"}
"""Schemes of clusters, and the scheme of one of their nodes."""
REDIS_PORT = 6379
REDIS_AT = rf"(\[[0-9A-Fa-f:.]+\]|[^/?#@:,\[\]\s]+)({PORT})?"
HUB = build_text(
    "hub URL",
    rf"memory://|rediss?://([^/?#\s]*@)?{REDIS_AT}(/[0-9]{{0,5}})?"
    rf"|rediss?\+cluster://([^/?#\s]*@)?{REDIS_AT}(,{REDIS_AT})*/?",
    "memory://",
    "redis://localhost:6379/0",
    "redis+cluster://10.0.0.5:7000,10.0.0.6:7000",
)
A_HUB = "memory://, redis://HOST:PORT, rediss://USER:PASSWORD@HOST:PORT/DATABASE or redis+cluster://HOST:PORT,HOST:PORT"


@written(HUB)
def read_hub_url(value: object) -> str:
    """Read the URL of a hub: `memory://`, or `redis[s]://[USER[:PASSWORD]@]HOST:PORT/DATABASE` with parts left out.

    Or `redis[s]+cluster://[USER[:PASSWORD]@]HOST:PORT,HOST:PORT…`. Errors show nothing of it: where it has another
    form, a password may be anywhere.
    """
    written = read_text(value, A_HUB)
    hint = f"{A_HUB}: in a password %2F for /, %3F for ?, %23 for #" if "@" in written else A_HUB
    if written.lower() == MEMORY:
        return MEMORY
    scheme, _, rest = written.partition("://")
    scheme = scheme.lower()
    if scheme not in (*REDIS, *CLUSTERS) or not rest:
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
        hosts = [_read_redis_address(host, hint) for host in where.split(",")]
        if len(set(hosts)) < len(hosts):
            raise value_error("names a node twice", "leave one of them out")
        return f"{scheme}://{at}{','.join(map(str, hosts))}"
    if not re.fullmatch("[0-9]{0,5}", path):
        raise value_error("has a path that is not the number of a database", hint)
    return f"{scheme}://{at}{_read_redis_address(where, hint)}/{int(path or 0)}"


def _read_redis_address(written: str, hint: str) -> Address:
    """Read a host and a port, which is Redis' own where there is none."""
    address = split_address(written) or split_address(f"{written}:{REDIS_PORT}")
    if address is None or address.port == 0:
        raise value_error("has no host, or a port that cannot be", hint)
    return address


class HubUrl(NamedTuple):
    """The URL of a hub in parts: `who` is the user and the password, `where` is HOST:PORT, in a cluster several."""

    scheme: str
    who: str
    where: tuple[str, ...]
    path: str

    @classmethod
    def parse(cls, url: str) -> "HubUrl":
        """Split a URL that `read_hub_url` has read."""
        scheme, _, rest = url.partition("://")
        netloc, _, path = rest.partition("/")
        who, _, where = netloc.rpartition("@")
        return cls(scheme, who, tuple(where.split(",")), path)


def has_password(url: str) -> bool:
    """Return whether there is a password in the URL of a hub that was read."""
    return bool(HubUrl.parse(url).who.partition(":")[2])


def remove_password(url: str) -> str:
    """Return the URL of a hub for all to see: with the user's name, without the password."""
    who = HubUrl.parse(url).who
    user = who.partition(":")[0]
    return url.replace(f"://{who}@", f"://{user}@" if user else "://", 1) if who else url


def is_local_hub(url: str) -> bool:
    """Return whether the URL of a hub names this host alone."""
    addresses = map(split_address, HubUrl.parse(url).where)
    return all(address is not None and is_loopback(address.host) for address in addresses)


@written(lambda inner: build_any_of(HUB, inner), lambda hub: str(hub.url))
def read_hub(value: object) -> object:
    """Read a hub: its URL, or a mapping with it."""
    return {"url": value} if isinstance(value, str) else value


class Hub(Part):
    """The hub: a Redis or Valkey by which hosts keep limits together. A URL alone is a hub with the defaults below.

    ```yaml
    hub: {url: "rediss://edge:${REDIS_PASSWORD:-}@redis.example.com:6379/0", on_loss: share, tls: {ca: certs/ca.pem}}
    ```

    Requests do not wait for the hub, except as [`sync`](#tiersnamelimits) of a limit says.
    """

    url: Annotated[str, BeforeValidator(read_hub_url)] = Field(
        default=MEMORY,
        repr=False,
        description="`redis://` or `rediss://` (TLS) and `[USER[:PASSWORD]@]HOST[:PORT][/DATABASE]`, by default port "
        "6379 and database 0. `redis+cluster://` or `rediss+cluster://` and some nodes, `HOST[:PORT],HOST[:PORT]`, by "
        "which the others are found. Take the password from the environment, escaped as in URLs: `%2F` for `/`. "
        "`check` warns of a password to another host without TLS.",
    )
    sync: Annotated[float, BeforeValidator(units.Time(0.1, 10.0))] = Field(
        default=1.0,
        description="Time after which the hub gets the count of a limit in use; sooner while it is nearly used up, "
        "after 2.4 times as long if no other host uses it. Longer for fewer calls: the hosts then err by more.",
    )
    on_loss: Literal["share", "full", "deny"] = Field(
        default="share",
        description="What this host lets through without the hub: its `share` of each limit, as the hub last knew it "
        "or an equal part if that is more; the `full` limit, as if it were alone; or nothing that a limit or "
        "`concurrency` holds (`deny`). Limits with `sync: strict` pass nothing; quotas go on with what is known. See "
        "[several hosts](limits.md#several-hosts).",
    )
    tls: OutwardTls = Field(
        default=OutwardTls(),
        description="TLS towards a hub of `rediss://` or `rediss+cluster://`; an error with any other.",
    )

    @property
    def is_shared(self) -> bool:
        """Whether other hosts may take part."""
        return self.url != MEMORY

    @property
    def name(self) -> str:
        """The URL without its password, for people and for processes that do not connect to it."""
        return remove_password(self.url)

    @property
    def is_exposed(self) -> bool:
        """Whether the password can be read by those on the way: it goes to another host, and not over TLS."""
        plain = self.url.startswith(("redis://", "redis+cluster://"))
        return plain and has_password(self.url) and not is_local_hub(self.url)
