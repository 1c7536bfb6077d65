"""The reachable upstreams at this moment: the addresses of their names, and which of these are up.

Each message to workers is complete. It is sent soon after a change, not at once, so that changes that come together (a
name's addresses, the ports of a host) are sent together.

Look-ups and probes belong to no configuration: results that another configuration needs too are kept.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypedDict

from edgeproxy.base.tasks import Tasks
from edgeproxy.config.edge.upstreams import Upstream
from edgeproxy.edge.messages import EndpointAddresses, Services, SetEndpoints
from edgeproxy.edge.metrics import Series
from edgeproxy.edge.supervisor import resolver
from edgeproxy.edge.supervisor.health import Health, Probe, ProbeTarget, ProbeTerms, select_usable
from edgeproxy.edge.supervisor.reachability import ConnectTarget, FetchRefusals, Reachability
from edgeproxy.edge.supervisor.resolver import LookUp, Resolver

GATHER_SECONDS = 0.05
"""Seconds that a change waits for others."""


class AddressReport(TypedDict):
    """An address of an endpoint; `why` is empty if it is up."""

    address: str
    up: bool
    why: str


class EndpointReport(TypedDict):
    """An endpoint; `why` is the reason why the last look-up of its name failed, or empty."""

    url: str
    why: str
    addresses: list[AddressReport]


class Upstreams:
    """The upstreams of the serving configuration, and of one that is considered.

    `send` sends a message to workers, and `probe` probes; `refused` returns the connections that workers could not
    make. `number` is the serving configuration's, and `trusted` are the files of its setting `trust`. Names are looked
    up once in `every` seconds.
    """

    def __init__(
        self,
        upstreams: Mapping[str, Upstream],
        send: Callable[[SetEndpoints], None],
        probe: Probe,
        look_up: LookUp | None = None,
        refused: FetchRefusals | None = None,
        *,
        trusted: tuple[Path, ...] = (),
        number: int = 1,
        every: float = resolver.LOOKUP_SECONDS,
    ) -> None:
        self._upstreams, self._trusted = upstreams, trusted
        self._considered: Mapping[str, Upstream] = {}
        self._considered_trusted: tuple[Path, ...] = ()
        self._number = number
        self._send = send
        self._failures: Counter[str] = Counter()
        """Failed look-ups by upstream, including upstreams that are gone."""
        self._resolver = Resolver(
            self._hosts(), self._on_addresses, look_up, on_failure=self._on_lookup_failure, every=every
        )
        self._health = Health(probe, self._schedule_message)
        self._reachability = None if refused is None else Reachability(refused, self._unprobed)
        self._tasks = Tasks()
        self._news = asyncio.Event()
        self._scheduled: asyncio.TimerHandle | None = None
        self._last_message: SetEndpoints | None = None

    # ---- life

    async def begin(self, seconds: float) -> None:
        """Start look-ups and probes. Return once every first result is there, or after `seconds`.

        Workers get the results at that time, and every later change.
        """
        self._follow()
        await self._wait_until_known(seconds)
        self._send_now()
        if self._reachability is not None:
            self._tasks.start("reachability", self._reachability.watch())

    async def consider(
        self, upstreams: Mapping[str, Upstream], seconds: float, trusted: tuple[Path, ...] = ()
    ) -> Services:
        """Look up and probe these upstreams too, and return their services.

        Return once every first result is there, or after `seconds`. Call `adopt` or `drop` next.
        """
        self._considered, self._considered_trusted = upstreams, trusted
        self._follow()
        await self._wait_until_known(seconds)
        return self._services(upstreams, trusted)

    def adopt(self, number: int) -> None:
        """Serve the considered upstreams, under this number, and send their services to workers."""
        self._upstreams, self._trusted, self._number = self._considered, self._considered_trusted, number
        self.drop()
        self._send_now()

    def drop(self) -> None:
        """Forget the considered upstreams."""
        self._considered, self._considered_trusted = {}, ()
        self._follow()

    async def _wait_until_known(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                while not (self._resolver.is_looked_up and self._health.is_probed):
                    await self._news.wait()
                    self._news.clear()
        except TimeoutError:
            pass

    async def end(self) -> None:
        """Stop look-ups, probes and messages."""
        if self._scheduled is not None:
            self._scheduled.cancel()
        await self._tasks.cancel()

    # ---- status

    def message(self) -> SetEndpoints:
        """Return the message to workers."""
        return SetEndpoints(self._number, self._services(self._upstreams, self._trusted))

    def _services(self, upstreams: Mapping[str, Upstream], trusted: tuple[Path, ...]) -> Services:
        return {
            name: [
                EndpointAddresses(
                    [address["address"] for address in entry["addresses"]],
                    [address["address"] for address in entry["addresses"] if address["up"] or upstream.health is None],
                )
                for entry in self._report(name, upstream, trusted)
            ]
            for name, upstream in upstreams.items()
        }

    def report(self) -> dict[str, list[EndpointReport]]:
        """Return the field `upstreams` of `GET /status`: the endpoints of each serving upstream."""
        return {name: self._report(name, upstream, self._trusted) for name, upstream in self._upstreams.items()}

    def series(self) -> list[Series]:
        """Return the metrics of upstreams. Counters begin at zero with each supervisor."""
        names = [*self._failures, *(name for name in self._upstreams if name not in self._failures)]
        metrics: list[Series] = [("edge_dns_failures_total", (name,), (self._failures[name],)) for name in names]
        for name, upstream in self._upstreams.items():
            addresses = [
                address for entry in self._report(name, upstream, self._trusted) for address in entry["addresses"]
            ]
            up = sum(address["up"] for address in addresses)
            metrics += [
                ("edge_upstream_endpoints", (name, "up"), (up,)),
                ("edge_upstream_endpoints", (name, "down"), (len(addresses) - up,)),
            ]
        return metrics

    def _report(self, name: str, upstream: Upstream, trusted: tuple[Path, ...]) -> list[EndpointReport]:
        endpoints, terms = upstream.endpoints, find_probe_terms(upstream, trusted)
        entries: list[EndpointReport] = [
            EndpointReport(url=endpoint.url, why=self._resolver[endpoint.host].why, addresses=[])
            for endpoint in endpoints
        ]
        reached = [
            (entry, endpoint.port, address)
            for entry, endpoint in zip(entries, endpoints, strict=True)
            for address in self._resolver[endpoint.host].addresses
        ]
        if terms is None:
            # Requests go to all of them.
            whys = [self._unreached(ConnectTarget(name, address, port)) for _, port, address in reached]
            states = [(not why, why) for why in whys]
        else:
            healths = [self._health[ProbeTarget(name, entry["url"], address, terms)] for entry, _, address in reached]
            states = list(zip(select_usable(healths), (health.why for health in healths), strict=True))
        for (entry, _, address), (up, why) in zip(reached, states, strict=True):
            entry["addresses"].append({"address": address, "up": up, "why": why})
        return entries

    def _unreached(self, place: ConnectTarget) -> str:
        return "" if self._reachability is None else self._reachability.why(place)

    def _unprobed(self) -> Iterator[ConnectTarget]:
        """Yield the addresses of all serving upstreams without health checks."""
        for name, upstream in self._upstreams.items():
            if upstream.health is None:
                for endpoint in upstream.endpoints:
                    for address in self._resolver[endpoint.host].addresses:
                        yield ConnectTarget(name, address, endpoint.port)

    # ---- changes

    def _on_addresses(self) -> None:
        """Handle a name's first look-up or other addresses."""
        self._follow()
        self._schedule_message()

    def _on_lookup_failure(self, host: str) -> None:
        """Count a failed look-up for the upstreams of this name."""
        self._failures.update(
            {name for name, upstream in self._all() if any(endpoint.host == host for endpoint in upstream.endpoints)}
        )

    def _schedule_message(self) -> None:
        """Schedule a message to workers, because an address or its health has changed."""
        self._news.set()
        if self._last_message is not None and self._scheduled is None:
            self._scheduled = asyncio.get_running_loop().call_later(GATHER_SECONDS, self._send_now)

    def _send_now(self) -> None:
        self._scheduled = None
        message = self.message()
        if message != self._last_message:
            self._last_message = message
            self._send(message)

    def _all(self) -> Iterator[tuple[str, Upstream]]:
        """Yield the serving and the considered upstreams by name; an upstream that is both comes twice."""
        yield from self._upstreams.items()
        yield from self._considered.items()

    def _hosts(self) -> list[str]:
        """Return the names of all endpoints."""
        return [endpoint.host for _, upstream in self._all() for endpoint in upstream.endpoints]

    def _follow(self) -> None:
        """Resolve all names, and probe the current addresses of upstreams with health checks."""
        self._resolver.follow(self._hosts(), self._tasks)
        self._health.follow(
            (
                ProbeTarget(name, endpoint.url, address, terms)
                for upstreams, trusted in (
                    (self._upstreams, self._trusted),
                    (self._considered, self._considered_trusted),
                )
                for name, upstream in upstreams.items()
                if (terms := find_probe_terms(upstream, trusted)) is not None
                for endpoint in upstream.endpoints
                for address in self._resolver[endpoint.host].addresses
            ),
            self._tasks,
        )


def find_probe_terms(upstream: Upstream, trusted: tuple[Path, ...]) -> ProbeTerms | None:
    """Return the terms of an upstream's probes; None without health checks.

    `trusted` are the files of the setting `trust`. They are no terms of an upstream that does not use them: otherwise
    a change of them would probe it anew.
    """
    if upstream.health is None:
        return None
    host = None if upstream.sent_host in ("pass", "upstream") else upstream.sent_host
    health = upstream.health
    uses_trust = upstream.tls.verify and upstream.tls.ca is None
    return ProbeTerms(
        health.path or "",
        health.every,
        upstream.tls,
        host,
        health.grpc,
        upstream.head,
        upstream.proxy_protocol,
        trusted if uses_trust and any(endpoint.scheme == "https" for endpoint in upstream.endpoints) else (),
    )
