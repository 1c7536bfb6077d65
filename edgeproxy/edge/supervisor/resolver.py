"""The addresses of host names, looked up at intervals, so that no worker ever waits for a look-up.

Look-ups use the system's resolver (getaddrinfo), which respects /etc/hosts and the host's other settings. It returns no
lifetimes, so every name is looked up at a fixed interval. A failed look-up changes nothing: the previous addresses are
the best known ones.
"""

import asyncio
import ipaddress
import random
import socket
from collections.abc import Awaitable, Callable, Iterable
from functools import partial

from edgeproxy.base import log
from edgeproxy.base.tasks import Tasks, run_in_thread
from edgeproxy.config.addresses import is_address

LOOKUP_SECONDS = 5.0
"""Seconds between two look-ups of a name, plus or minus a tenth."""
FIRST_RETRY_SECONDS = 1.0
"""Seconds between two look-ups of a name that has no address yet."""
LOOKUP_TIMEOUT = 10.0
"""A look-up without an answer within these seconds has failed."""
ADDRESSES_MAX = 1024
"""Addresses of a name. A name server can send some 4,000, and each has probes and a place in every worker."""
LOGGED_MAX = 16
"""Addresses in a log line."""
LOG_QUIET_SECONDS = 60.0
"""Seconds between two log lines about one name that cannot be looked up."""

LookUp = Callable[[str], Awaitable[Iterable[str]]]
"""Returns the addresses of a host name as IP literals. Raises OSError or UnicodeError if there are none."""


class HostName:
    """A host name and its addresses."""

    def __init__(self, host: str) -> None:
        self.host = host
        self.addresses: tuple[str, ...] = ()
        """IP literals in numeric order, because resolvers return them in varying orders."""
        self.is_looked_up = False
        """True if a look-up has ended, with or without an address."""
        self.failures = 0
        self.why = "not looked up yet"
        """The reason why the last look-up gave no address; empty if it gave some."""


class Resolver:
    """Resolver of the names `hosts`. The address of an IP literal is known at once.

    `on_change` is called at each change, and `on_failure` with the name at each failed look-up.
    """

    def __init__(
        self,
        hosts: Iterable[str],
        on_change: Callable[[], None],
        look_up: LookUp | None = None,
        *,
        on_failure: Callable[[str], None] = lambda _: None,
        every: float = LOOKUP_SECONDS,
    ) -> None:
        self._names: dict[str, HostName] = {}
        self._following: dict[str, asyncio.Task[None]] = {}
        self._on_change = on_change
        self._on_failure = on_failure
        self._look_up = look_up or SystemResolver()
        self._every = every
        self._log = log.get_logger()
        self._rare_log = log.RateLimitedLog(LOG_QUIET_SECONDS)
        self._know(hosts)

    def __getitem__(self, host: str) -> HostName:
        return self._names[host]

    @property
    def is_looked_up(self) -> bool:
        """True if each name was looked up at least once."""
        return all(name.is_looked_up for name in self._names.values())

    def start(self, tasks: Tasks) -> None:
        """Start looking up every name."""
        self.follow(tuple(self._names), tasks)

    def follow(self, hosts: Iterable[str], tasks: Tasks) -> None:
        """Look up only these names from now on. Names that stay keep their addresses."""
        followed = set(hosts)
        self._know(followed)
        for gone in self._names.keys() - followed:
            del self._names[gone]
            if gone in self._following:
                self._following.pop(gone).cancel()
        for host, name in self._names.items():
            if host not in self._following and not is_address(host):
                self._following[host] = tasks.start(f"look up {host}", self._follow(name))

    def _know(self, hosts: Iterable[str]) -> None:
        for host in hosts:
            if host not in self._names:
                name = self._names[host] = HostName(host)
                if is_address(host):
                    name.addresses, name.is_looked_up, name.why = (host,), True, ""

    async def _follow(self, name: HostName) -> None:
        while True:
            await self._look(name)
            # Spread over time, to spare the name server.
            pause = self._every if name.addresses else min(self._every, FIRST_RETRY_SECONDS)
            await asyncio.sleep(pause * random.uniform(0.9, 1.1))

    async def _look(self, name: HostName) -> None:
        try:
            async with asyncio.timeout(LOOKUP_TIMEOUT):
                addresses = sort_addresses(await self._look_up(name.host))
        except (OSError, UnicodeError) as error:  # TimeoutError is an OSError.
            why = getattr(error, "strerror", None) or str(error) or f"no answer within {LOOKUP_TIMEOUT:g} s"
            self._record_failure(name, why)
        except Exception as error:
            # Without this the name would never be looked up again.
            self._log.exception("a name could not be looked up", name=name.host)
            self._record_failure(name, repr(error))
        else:
            self._record_addresses(name, addresses)

    def _record_failure(self, name: HostName, why: str) -> None:
        name.failures += 1
        self._on_failure(name.host)
        name.why = why
        addresses = list(name.addresses[:LOGGED_MAX])
        self._rare_log.error("upstream name cannot be looked up", name.host, why=why, addresses_kept=addresses)
        if not name.is_looked_up:
            name.is_looked_up = True
            self._on_change()

    def _record_addresses(self, name: HostName, addresses: tuple[str, ...]) -> None:
        name.why = ""
        if len(addresses) > ADDRESSES_MAX:
            self._rare_log.error(
                "upstream name has more addresses than are used",
                name.host,
                addresses=len(addresses),
                used=ADDRESSES_MAX,
            )
            addresses = addresses[:ADDRESSES_MAX]
        if name.is_looked_up and addresses == name.addresses:
            return
        if name.addresses or name.failures:
            after, before = addresses[:LOGGED_MAX], name.addresses[:LOGGED_MAX]
            self._log.info("upstream addresses changed", host=name.host, addresses=after, before=before)
        name.addresses, name.is_looked_up = addresses, True
        self._on_change()


class SystemResolver:
    """Look-ups by the system's resolver, one at a time for each name.

    Each has its own thread, and the supervisor does not wait for it at its end. A resolver whose servers are
    unreachable may take half a minute, and must delay neither other names nor the end.
    """

    def __init__(self) -> None:
        self._running: dict[str, asyncio.Future[tuple[str, ...]]] = {}

    async def __call__(self, host: str) -> tuple[str, ...]:
        lookup = self._running.get(host)
        if lookup is None:
            lookup = self._running[host] = run_in_thread(f"look up {host}", partial(_look_up, host))
            lookup.add_done_callback(lambda ended: self._ended(host, ended))
        return await asyncio.shield(lookup)

    def _ended(self, host: str, lookup: asyncio.Future[tuple[str, ...]]) -> None:
        del self._running[host]
        if not lookup.cancelled():
            lookup.exception()  # The caller may have given up, so the exception is marked as retrieved.


def _look_up(host: str) -> tuple[str, ...]:
    """Return the addresses of a host; blocks."""
    entries = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return filter_reachable({str(entry[4][0]) for entry in entries})


def filter_reachable(addresses: Iterable[str]) -> tuple[str, ...]:
    """Return the addresses that this host has a route to (RFC 6724 section 5, rule 1); all of them if it has none.

    On a host without IPv6, half of the requests to a service with IPv6 addresses would begin with a connection that
    cannot be made.
    """
    known = tuple(addresses)
    return tuple(address for address in known if has_route(address)) or known


def has_route(address: str) -> bool:
    """Return whether packets to this address would leave the host. Sends none."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((address, 9))
    except OSError:
        return False
    return True


def sort_addresses(addresses: Iterable[str]) -> tuple[str, ...]:
    """Return each address once, IPv4 before IPv6, in numeric order."""

    def number(address: str) -> tuple[int, int, str]:
        parsed = ipaddress.ip_address(address)
        # The text distinguishes addresses that differ only in their zone: fe80::1%eth0.
        return parsed.version, int(parsed), address

    return tuple(sorted(set(addresses), key=number))
