"""Where upstreams can be reached at this moment: the addresses of their names, and which of these are well.

Workers are told the whole truth each time. They are told soon after it has changed, not at once: what changes
together (a name's addresses, the ports of a host) is told together.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from edgeproxy.config.models import Upstream
from edgeproxy.supervisor import resolver
from edgeproxy.supervisor.exposition import Series
from edgeproxy.supervisor.health import Ask, Health, Target, usable
from edgeproxy.supervisor.resolver import LookUp, Resolver
from edgeproxy.tasks import Tasks

SOON = 0.05
"""Seconds that a change waits for others."""

Message = dict[str, Any]


class Upstreams:
    """The upstreams of one configuration. `tell` takes each `endpoints` message, see `message`; `ask` probes.

    Names are looked up `every` so many seconds.
    """

    def __init__(
        self,
        upstreams: Mapping[str, Upstream],
        tell: Callable[[Message], None],
        ask: Ask,
        look_up: LookUp | None = None,
        *,
        every: float = resolver.EVERY,
    ) -> None:
        self._upstreams = upstreams
        self._tell = tell
        hosts = [endpoint.host for upstream in upstreams.values() for endpoint in upstream.endpoints]
        self._resolver = Resolver(hosts, self._moved, look_up, every=every)
        self._health = Health(ask, self._learned)
        self._tasks = Tasks()
        self._news = asyncio.Event()
        self._telling: asyncio.TimerHandle | None = None
        self._told: Message | None = None

    # ---- life

    async def begin(self, seconds: float) -> None:
        """Look up and probe from now on; returns once everything was asked once, or after so many seconds.

        Tells what is known by then, and from there on whatever changes.
        """
        self._resolver.start(self._tasks)
        self._follow()
        try:
            async with asyncio.timeout(seconds):
                while not (self._resolver.asked and self._health.asked):
                    await self._news.wait()
                    self._news.clear()
        except TimeoutError:
            pass
        self._tell_now()

    async def end(self) -> None:
        """Ask and tell no more."""
        if self._telling is not None:
            self._telling.cancel()
        await self._tasks.cancel()

    # ---- what is known

    def message(self) -> Message:
        """The `endpoints` message: of each upstream, for each endpoint as configured, its addresses and those `up`."""
        return {
            "type": "endpoints",
            "services": {
                name: [
                    {
                        "url": entry["url"],
                        "addresses": [known["address"] for known in entry["addresses"]],
                        "up": [known["address"] for known in entry["addresses"] if known["up"]],
                    }
                    for entry in self._entries(name)
                ]
                for name in self._upstreams
            },
        }

    def report(self) -> dict[str, Any]:
        """For `GET /status`: of each upstream, for each endpoint, its addresses, which are up, and why others not.

        `why` of an endpoint says why its name could not be looked up when it was last; empty where it could.
        """
        return {name: self._entries(name) for name in self._upstreams}

    def series(self) -> list[Series]:
        """The metrics of upstreams. What is counted begins at zero with each supervisor."""
        found: list[Series] = []
        for name, upstream in self._upstreams.items():
            known = [known for entry in self._entries(name) for known in entry["addresses"]]
            up = sum(one["up"] for one in known)
            failures = sum(self._resolver[host].failures for host in {endpoint.host for endpoint in upstream.endpoints})
            found += [
                ("edge_upstream_endpoints", (name, "up"), (up,)),
                ("edge_upstream_endpoints", (name, "down"), (len(known) - up,)),
                ("edge_dns_failures_total", (name,), (failures,)),
            ]
        return found

    def _entries(self, name: str) -> list[dict[str, Any]]:
        endpoints = self._upstreams[name].endpoints
        entries: list[dict[str, Any]] = [
            {"url": endpoint.url, "why": self._resolver[endpoint.host].why, "addresses": []} for endpoint in endpoints
        ]
        reached = [
            (entry, address)
            for entry, endpoint in zip(entries, endpoints, strict=True)
            for address in self._resolver[endpoint.host].addresses
        ]
        if self._upstreams[name].health is None:
            told = [(True, "")] * len(reached)
        else:
            standings = [self._health[Target(name, entry["url"], address)] for entry, address in reached]
            told = list(zip(usable(standings), (standing.why for standing in standings), strict=True))
        for (entry, address), (up, why) in zip(reached, told, strict=True):
            entry["addresses"].append({"address": address, "up": up, "why": why})
        return entries

    # ---- what changes

    def _moved(self) -> None:
        """A name has other addresses, or was looked up for the first time."""
        self._follow()
        self._learned()

    def _learned(self) -> None:
        """Something is new: a name's addresses, or how one of them is."""
        self._news.set()
        if self._told is not None and self._telling is None:
            self._telling = asyncio.get_running_loop().call_later(SOON, self._tell_now)

    def _tell_now(self) -> None:
        self._telling = None
        message = self.message()
        if message != self._told:
            self._told = message
            self._tell(message)

    def _follow(self) -> None:
        """Probe the addresses that there are by now, of upstreams that want it."""
        targets = {
            Target(name, endpoint.url, address): upstream.health.every
            for name, upstream in self._upstreams.items()
            if upstream.health is not None
            for endpoint in upstream.endpoints
            for address in self._resolver[endpoint.host].addresses
        }
        self._health.follow(targets, self._tasks)
