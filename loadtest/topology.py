"""The servers of a load test: a real edge in each region, a Redis, a collector, and a service behind them.

Regions reach the hub through links of 1, 80 and 150 ms. Clients reach their own region directly, and another region
through a link of 80 ms. Everything is on this machine, on free ports.
"""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from itertools import cycle
from pathlib import Path
from typing import Any, Self

from loadtest.regions.relay import Link
from loadtest.testbed.collector import EDGE, Collector
from loadtest.testbed.customers import key_line
from loadtest.testbed.edge import START, Edge
from loadtest.testbed.http_client import ask
from loadtest.testbed.ports import HOST, Ports
from loadtest.testbed.process import Process, family, kill
from loadtest.testbed.redis import Redis
from loadtest.testbed.waiting import until
from loadtest.workload import BURST, BURSTING, HOLE, SLOW_READER, Tier, Workload

HUBS = (0.001, 0.080, 0.150)
"""Seconds of a round trip from the regions to the hub, in their order."""
DISTANCE = 0.080
"""Seconds of a round trip from the clients of one region to another region."""
DELAY = 0.020
"""Seconds of the service's response time."""
WORKERS = 2
ANONYMOUS, UNLIMITED = "anonymous", "unlimited"
"""The tier of clients without a key, and one for slow readers."""
RELAY = "127.0.0.1/32"
"""The address that only relays connect from. A relay cannot name its client, so clients state their own address."""
MANY = 10_000
"""Connections from one address: so many that a stall does not reach the limit. The judge judges a backlog."""


class Door(Link):
    """The way of an edge's own clients to the edge, if packets must vanish there: no delay, until `hole`.

    After `hole`, existing connections carry no data and new attempts get no answer. A listening socket with a full
    queue replaces the edge's, and the kernel drops its packets.
    """

    def __init__(self, target: int) -> None:
        super().__init__(target, 0.0)
        self._full: list[socket.socket] = []

    async def _listen(self) -> None:
        self._close_full()
        if not self.stands_still:
            await super()._listen()
            return
        if self._server is not None:
            self._server.close()
            self._server = None
        listening = socket.socket()
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listening.bind((HOST, self.port))
        listening.listen(0)
        self._full = [listening]
        for _ in range(4):
            filling = socket.socket()
            filling.setblocking(False)
            filling.connect_ex((HOST, self.port))
            self._full.append(filling)

    def _close_full(self) -> None:
        for one in self._full:
            one.close()
        self._full = []


Settings = Callable[[str], Mapping[str, Any]]
"""Returns further settings of a region's edge."""


class Upstream:
    """The service, as a process."""

    def __init__(self, folder: Path, delay: float) -> None:
        self._ports = Ports(1)
        (self.port,) = self._ports.numbers
        self._delay = delay
        command = [sys.executable, "-m", "loadtest.upstream", str(self.port), str(delay)]
        self._process = Process(command, folder / "upstream.log")

    def ready(self) -> bool:
        """Return whether it answers."""
        try:
            return ask(self.port, "/-/counts").status == 200
        except OSError:
            return False

    def counts(self) -> dict[str, int]:
        """Return the requests that it answered, by customer."""
        told: dict[str, int] = ask(self.port, "/-/counts").json()["counts"]
        return told

    def slow(self, by: float) -> None:
        """Add this many seconds to its response time; 0 restores it."""
        ask(self.port, f"/-/delay?ms={1000 * (self._delay + by):g}")

    def stop(self) -> None:
        """Stop the process, so that requests hang."""
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Resume the process."""
        self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        self.go_on()
        self._process.stop()
        self._ports.close()


def tier_settings(tier: Tier) -> dict[str, Any]:
    """Return a tier in the form of the edge's settings."""
    settings: dict[str, Any] = {
        "limits": [{"rate": f"{tier.limit.count}/{tier.limit.seconds:g}s"}] if tier.limit else []
    }
    if tier.burst_credits is not None:
        earn, most = tier.burst_credits.earn, tier.burst_credits.max
        settings["burst_credits"] = {"earn": f"{earn.count}/{earn.seconds:g}s", "max": most}
    return settings


def people(workload: Workload) -> dict[str, Any]:
    """Return the settings `tiers`, `customers` and `keys` for all clients of a workload."""
    tiers: dict[str, Any] = {UNLIMITED: {"limits": []}}
    customers: dict[str, Any] = {f"{SLOW_READER}-0": {"tier": UNLIMITED}}
    bursting = UNLIMITED
    for name, tier in workload.tiers.items():
        if tier.addresses:
            tiers[ANONYMOUS] = tier_settings(tier)
            continue
        tiers[name] = tier_settings(tier)
        customers |= {f"{name}-{number}": {"tier": name} for number in range(tier.people)}
        if name in workload.limits and bursting == UNLIMITED:
            bursting = name
    customers |= {f"{BURST}-{number}": {"tier": bursting} for number in range(BURSTING)}
    return {"tiers": tiers, "customers": customers, "keys": [key_line(name) for name in customers]}


class Topology:
    """All servers, from `with` to its end."""

    def __init__(
        self, folder: Path, workload: Workload, *, delay: float = DELAY, settings: Settings = lambda region: {}
    ) -> None:
        """`settings` returns further settings of a region's edge, which override the defaults here."""
        self._folder, self._workload, self._delay, self._more = folder, workload, delay, settings
        folder.mkdir(parents=True, exist_ok=True)
        self.edges: dict[str, Edge] = {}
        self.links: dict[str, Link] = {}
        """Links to the hub, by region."""
        self._relays: dict[str, Link] = {}
        self.doors: dict[str, Door] = {}
        """Links of the regions that may drop packets."""
        self.lost: set[str] = set()
        # The kernel ends a child when the *thread* that started it ends, so this thread lives until the end.
        self._starter = ThreadPoolExecutor(1)
        self.trouble: list[str] = []
        """Log lines that no edge may ever write, and wrong exits of edges; filled at the end."""

    def __enter__(self) -> Self:
        with ExitStack() as undo:
            self.upstream = undo.enter_context(closing(Upstream(self._folder, self._delay)))
            self.redis = Redis(self._folder)
            undo.callback(self.redis.kill)
            known = people(self._workload)
            names = {name: {"tier": "basic"} for name in known["customers"]}
            ledger = f"sqlite:///{self._folder}/ledger.db"
            self.collector = undo.enter_context(closing(Collector(self._folder / "collector", ledger, customers=names)))
            self.collector.begin()
            for region, rtt in zip(self._workload.regions, cycle(HUBS)):
                link = undo.enter_context(Link(self.redis.port, rtt, seed=region))
                edge = self._edge(region, link, known)
                undo.callback(_closed, (region, edge))
                self.links[region], self.edges[region] = link, edge
                if any(event.lose == region and event.how == HOLE for event in self._workload.events):
                    self.doors[region] = undo.enter_context(Door(edge.port))
                self._relays[region] = undo.enter_context(Link(edge.port, DISTANCE, seed=region))
            for edge in self.edges.values():
                edge.begin()
            until(self.upstream.ready, "the upstream answers")
            until(self.collector.ready, "the collector is ready", seconds=START)
            for edge in self.edges.values():
                until(edge.ready, "the edge is ready", seconds=START)
            together = [edge for edge in self.edges.values() if "redis" in edge.settings["hub"]]
            for edge in together:
                until(lambda: edge.status()["hub"].get("hosts") == len(together), "all are on the hub")  # noqa: B023
            self._undo = undo.pop_all()
        return self

    def __exit__(self, *why: Any) -> None:
        with ThreadPoolExecutor(len(self.edges)) as closers:
            self.trouble = [said for said in closers.map(_closed, self.edges.items()) if said]
        self._undo.__exit__(*why)
        self._starter.shutdown()

    def _edge(self, region: str, link: Link, known: Mapping[str, Any]) -> Edge:
        path = "/*" if self._workload.requests else "/v1/*"
        settings: dict[str, Any] = {
            "region": region,
            "workers": WORKERS,
            "hub": f"redis://{HOST}:{link.port}/0",
            "usage": {"collector": f"http://{HOST}:{self.collector.port}", "token": EDGE, "every": "1s"},
            "routes": [{"name": "v1", "path": path, "upstream": "api", "auth": "optional"}],
            "limits": {"connections_per_ip": MANY},
            "trusted_proxies": [RELAY],
            **known,
            **self._more(region),
        }
        return Edge(self._folder / region, self.upstream.port, **settings)

    # ---- where clients go

    @property
    def urls(self) -> dict[str, str]:
        """Return the URL of each region for its own clients."""
        ports = {region: edge.port for region, edge in self.edges.items()}
        ports |= {region: door.port for region, door in self.doors.items()}
        return {region: f"http://{HOST}:{port}" for region, port in ports.items()}

    @property
    def relays(self) -> dict[str, str]:
        """Return the URL of each region for clients of other regions."""
        return {region: f"http://{HOST}:{relay.port}" for region, relay in self._relays.items()}

    @property
    def direct(self) -> str:
        """The URL of the service itself."""
        return f"http://{HOST}:{self.upstream.port}"

    # ---- what happens to it

    def lose(self, region: str) -> None:
        """Kill every process of an edge. All are stopped first, so that none serves longer than others."""
        self.lost.add(region)
        pids = family(self.edges[region].family_name)
        for pid in pids:
            _send(pid, signal.SIGSTOP)
        for pid in pids:
            kill(pid)

    def restore(self, region: str) -> None:
        """Start an edge again on its state."""
        edge = self.edges[region]
        started = self._starter.submit(edge.begin).result()
        until(lambda: edge.ready() or not started.running, f"the edge of {region} is ready", seconds=START)
        assert started.running, started.output
        self.lost.discard(region)

    def cut_hub(self) -> None:
        """Drop all packets to the hub. Connections stay open."""
        for link in self.links.values():
            link.hole()

    def heal_hub(self) -> None:
        """Restore the links to the hub."""
        for link in self.links.values():
            link.heal()

    # ---- state

    def shipped(self) -> bool:
        """Return whether the edges have shipped all counts to the ledger."""
        try:
            return all(edge.status()["usage"]["unshipped"] == 0 for edge in self.edges.values())
        except OSError:
            return False

    def ledger(self) -> dict[str, int]:
        """Return the requests in the ledger by customer."""
        rows = self.collector.usage(by="customer", meter="requests")["rows"]
        return {row["customer"]: row["value"] for row in rows}


def _closed(named: tuple[str, Edge]) -> str:
    """Stop an edge. Returns the faults of its exit or of its output."""
    region, edge = named
    ended = ""
    if edge.supervisors and not edge.supervisor.running:
        ended = f"edge of {region}: ended by itself, with exit code {edge.supervisor.wait(1.0)}"
    try:
        edge.close()
    except (AssertionError, subprocess.TimeoutExpired) as error:
        return f"edge of {region}: {' '.join(str(error).split())[:300]}"
    return ended


def _send(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass
