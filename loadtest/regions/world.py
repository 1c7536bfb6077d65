"""Three regions on one machine: edges with two workers each, one Redis, and an ocean between each edge and it.

with World(folder, customers={"acme": [{"rate": "600/min"}]}) as world:
    world["asia"].edge.ask(key=key_of("acme"))
    world["asia"].link.cut()
"""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, NamedTuple, Self

from loadtest.regions.relay import Link
from loadtest.testbed.customers import key_line
from loadtest.testbed.edge import START, Edge
from loadtest.testbed.http_client import ask
from loadtest.testbed.ports import HOST, Ports
from loadtest.testbed.process import Process
from loadtest.testbed.redis import Redis
from loadtest.testbed.waiting import until

REGIONS = {"eu": 0.001, "us": 0.080, "asia": 0.150}
"""Seconds to the hub and back."""
WORKERS = 2

Limits = Sequence[Mapping[str, Any]]


class Region(NamedTuple):
    """One of them."""

    name: str
    edge: Edge
    link: Link


class Upstream:
    """The service behind them, as a process (upstream.py)."""

    def __init__(self, folder: Path) -> None:
        self._ports = Ports(1)
        (self.port,) = self._ports.numbers
        command = [sys.executable, "-m", "loadtest.regions.upstream", str(self.port)]
        self._process = Process(command, folder / "upstream.log")
        try:
            until(self._answers, "the upstream answers")
        except BaseException:
            self.close()
            raise

    def _answers(self) -> bool:
        try:
            return ask(self.port, "/-/forget").status == 200
        except OSError:
            return False

    def arrivals(self) -> dict[str, list[float]]:
        """By customer: when (monotonic) a request of it came."""
        body: dict[str, list[float]] = ask(self.port, "/-/arrivals").json()
        return body

    def close(self) -> None:
        self._process.stop()
        self._ports.close()


class World:
    """All of it, from `with` to its end. `customers`: by name, their limits as in the configuration."""

    def __init__(
        self,
        folder: Path,
        customers: Mapping[str, Limits],
        *,
        regions: Mapping[str, float] = REGIONS,
        seed: object = 0,
        prepare: Callable[[str, Edge], None] = lambda name, edge: None,
        **settings: Any,
    ) -> None:
        """`prepare` is given each region's edge before it starts; `settings` are further ones of all edges."""
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.regions: dict[str, Region] = {}
        self._round_trips = regions
        self._seed = seed
        self._prepare = prepare
        self._settings = {
            "tiers": {"own": {"limits": []}},
            "customers": {name: {"tier": "own", "limits": list(limits)} for name, limits in customers.items()},
            "keys": [key_line(name) for name in customers],
            "workers": WORKERS,
            **settings,
        }

    def __enter__(self) -> Self:
        with ExitStack() as undo:
            self.upstream = undo.enter_context(closing(Upstream(self.folder)))
            self.redis = Redis(self.folder)
            undo.callback(self.redis.kill)
            for name, rtt in self._round_trips.items():
                link = undo.enter_context(Link(self.redis.port, rtt, seed=f"{self._seed} {name}"))
                edge = self.edge(name, hub=f"redis://{HOST}:{link.port}/0")
                self.regions[name] = Region(name, undo.enter_context(closing(edge)), link)
            for region in self:
                self._prepare(region.name, region.edge)
                region.edge.begin()
            for region in self:
                self.ready(region.edge, hosts=len(self.regions))
            self._undo = undo.pop_all()
        return self

    def __exit__(self, *why: Any) -> None:
        self._undo.__exit__(*why)

    def __getitem__(self, name: str) -> Region:
        return self.regions[name]

    def __iter__(self) -> Iterator[Region]:
        return iter(self.regions.values())

    def edge(self, name: str, **settings: Any) -> Edge:
        """An edge like all of them, in a region of this name; not started."""
        return Edge(self.folder / name, self.upstream.port, **(self._settings | {"region": name} | settings))

    def ready(self, edge: Edge, *, hosts: int | None) -> None:
        """Wait until it serves, and knows of so many hosts; None: it has no hub."""
        started = edge.supervisor
        until(lambda: not started.running or edge.ready(), "the edge is ready", seconds=START)
        assert started.running, started.output
        if hosts is not None:
            until(lambda: edge.status()["hub"].get("hosts") == hosts, f"{hosts} hosts are on the hub")
