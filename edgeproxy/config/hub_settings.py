"""The hub (Redis), on which the hosts of a region agree: its settings, and its URL."""

import re
from typing import Annotated, Literal, NamedTuple
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field

from edgeproxy.config import units
from edgeproxy.config.addresses import Address, is_loopback, split_address
from edgeproxy.config.field_types import File, Switch
from edgeproxy.config.part import Part
from edgeproxy.config.units import read_text, value_error

MEMORY = "memory://"
"""The hub of those who share with nobody."""
REDIS = ("redis", "rediss")
CLUSTERS = {"redis+cluster": "redis", "rediss+cluster": "rediss"}
"""How a cluster is written, and one node of it."""
REDIS_PORT = 6379
A_HUB = "memory://, redis://HOST:PORT, rediss://USER:PASSWORD@HOST:PORT/DATABASE or redis+cluster://HOST:PORT,HOST:PORT"


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
    """Whether there is a password in the URL of a hub that was read."""
    return bool(HubUrl.parse(url).who.partition(":")[2])


def remove_password(url: str) -> str:
    """Return the URL of a hub for all to see: with the user's name, without the password."""
    who = HubUrl.parse(url).who
    user = who.partition(":")[0]
    return url.replace(f"://{who}@", f"://{user}@" if user else "://", 1) if who else url


def is_local_hub(url: str) -> bool:
    """Whether the URL of a hub names this host alone."""
    addresses = map(split_address, HubUrl.parse(url).where)
    return all(address is not None and is_loopback(address.host) for address in addresses)


def read_hub(value: object) -> object:
    """Read a hub: its URL, or a mapping with it."""
    return {"url": value} if isinstance(value, str) else value


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

    url: Annotated[str, BeforeValidator(read_hub_url)] = Field(default=MEMORY, repr=False)
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
