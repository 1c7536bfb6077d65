"""The edge, its endpoints, clients and collector, and the faults of the edge and endpoints. Each fault is recorded."""

import random
import signal
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import orjson

from loadtest.soak import sockets
from loadtest.soak.account import Account
from loadtest.soak.fault import Fault, FaultKind, Held
from loadtest.soak.kinds import API, BULK, COMER, DETOUR, KINDS, LIMITED
from loadtest.soak.service import HEALTH
from loadtest.soak.sums import Sums
from loadtest.soak.tally import ODD, Tally
from loadtest.soak.traffic import Plan
from loadtest.testbed.authority import Authority
from loadtest.testbed.collector import Collector, checked
from loadtest.testbed.customers import key_line
from loadtest.testbed.edge import total
from loadtest.testbed.fault_load import whole_crew
from loadtest.testbed.faulty_edge import ARRIVED, Counted
from loadtest.testbed.http_client import ask
from loadtest.testbed.ports import HOST, Ports
from loadtest.testbed.process import Process, kill
from loadtest.testbed.relay import CALM
from loadtest.testbed.waiting import until

WORKERS = 2
DRAIN = 12
"""Seconds of a drain; no stream should last half as long."""
LATE = 3.0
"""Seconds that the end of an old edge may take beyond its drain."""
PROBED = 1.0
"""Seconds between two probes of an endpoint."""
LASTING, GUEST = ("a", "b"), "c"
"""The endpoints that are killed now and then, and the endpoint that reloads add and remove."""
LIMITS = ("100/10s", "150/10s", "60/10s")


class Site:
    """The whole site, from `open` to `close`. One thread makes the faults of the edge, another one the faults of
    endpoints.
    """

    def __init__(self, folder: Path, seed: int, *, slower: float = 1.0) -> None:
        """`slower`: see traffic.Plan."""
        self.folder, self.seed, self._slower = folder, seed, slower
        self.faults: list[Fault] = []
        self.held = {COMER: Held(), DETOUR: Held()}
        self.well = threading.Lock()
        """Held while the edge may still treat a stopped endpoint as up."""
        self._ends = ExitStack()
        self._ports = Ports(4)
        self._ends.callback(self._ports.close)
        self.secure_port, *numbers = self._ports.numbers
        self.services = dict(zip((*LASTING, GUEST), numbers, strict=True))
        self.tallies = {name: Tally(folder / f"{name}.tally") for name in self.services}
        self._running: dict[str, Process] = {}
        self._hand = ThreadPoolExecutor(1)
        """Starts endpoints: they end with the thread that started them (PR_SET_PDEATHSIG)."""
        self._ends.callback(self._hand.shutdown)
        self._authority = Authority(folder)
        self.collector = Collector(folder / "collector", f"sqlite:///{folder}/ledger.db")
        self._ends.callback(self.collector.close)
        self.edge = Counted(folder / "edge", 0, self.collector, "eu-soak", seed, **self._settings())
        self._ends.callback(self.edge.close)
        self._clients: Process | None = None
        self._account = Account()
        self.sums: list[Sums] = []
        """The sums of all parties whenever no request was under way."""

    def _settings(self) -> dict[str, Any]:
        return {
            "drain": f"{DRAIN}s",
            "workers": WORKERS,
            "upstreams": {API: self._upstream(*LASTING, GUEST), BULK: self._upstream(*LASTING)},
            "routes": [
                {"name": kind.name, "path": f"/{kind.name}/*", "upstream": kind.upstream} for kind in KINDS.values()
            ],
            "tiers": {"free": {"limits": []}},
            "customers": {
                name: {"tier": "free", **({"limits": [{"rate": LIMITS[0]}]} if name == LIMITED else {})}
                for name in KINDS
            },
            "keys": [key_line(name) for name in KINDS],
        }

    def _upstream(self, *names: str) -> dict[str, Any]:
        return {
            "endpoints": [f"http://{HOST}:{self.services[name]}" for name in names],
            "health": {"path": HEALTH, "every": f"{PROBED:g}s"},
            "timeouts": {"idle": "10s"},
            "eject": {"errors": 5, "for": "2s"},
        }

    # ---- life

    def open(self) -> "Site":
        """Start everything except the clients."""
        for name in self.services:
            self._hand.submit(self._start_service, name).result()
            self._ends.callback(self._stop_service, name)
        self.collector.start()
        pair = self._authority.issue(HOST)
        secure = {"address": f"{HOST}:{self.secure_port}", "tls": {"cert": str(pair.cert), "key": str(pair.key)}}
        self.edge.start(listen=[self.edge.settings["listen"], secure])
        for held in self.held.values():
            held.turn(0, True)
        return self

    def close(self) -> None:
        """Stop everything."""
        if self._clients is not None:
            self._clients.stop()
        self._ends.close()

    def load(self) -> None:
        """Start the clients; returns once every kind of traffic has arrived."""
        told = self.folder / "account.json"
        seed = self.seed + len(self.sums)
        plan = Plan(self.edge.port, self.secure_port, str(self._authority.file), seed, str(told), self._slower)
        command = [sys.executable, "-m", "loadtest.soak.traffic", orjson.dumps(asdict(plan)).decode()]
        self._clients = Process(command, self.folder / "clients.log")
        until(lambda: all(self.given(name) for name in KINDS), "every kind of traffic arrives")

    def unload(self) -> None:
        """Let the clients finish their requests, and add their account."""
        assert self._clients is not None
        assert self._clients.running, self._clients.output
        assert self._clients.wait_after(signal.SIGTERM, 40) == 0, self._clients.output
        assert not self._clients.output
        self._account += Account.read(self.folder / "account.json")

    def rest(self) -> None:
        """Remove all faults, stop the clients, wait until all counts have arrived, and record the sums."""
        with self.well:
            self.edge.fill_disk(False)
            self.edge.set_clock(0.0)
            self.edge.relay.fates = CALM
            self.settle()
            self.unload()
        self._arrived()
        self.edge.relay.late()
        counted, ledger = self._arrived()
        samples = self.edge.metrics()
        self.sums.append(
            Sums(
                account=self._account,
                counted=counted,
                sealed=self.edge.sealed(),
                ledger=ledger,
                metered=total(samples, "edge_usage_counted_total", meter="requests"),
                given={name: self.given(name) for name in (*KINDS, ODD)},
                retries=total(samples, "edge_upstream_retries_total"),
                limited=total(samples, "edge_rate_limited_total", mode="enforce"),
                verdicts={
                    "edgeproxy spool verify": self.edge.spool("verify"),
                    "edgeproxy verify": checked(self.collector),
                },
            )
        )

    @property
    def is_wrong(self) -> bool:
        """Return whether a count is already known to be wrong."""
        return bool(self.sums and self.sums[-1].complaints())

    def _arrived(self) -> tuple[dict[str, int], dict[str, int]]:
        """Return the edge's counts and the ledger, once they are equal or after ARRIVED seconds."""
        end = monotonic() + ARRIVED
        while True:
            counted, ledger = self.edge.usage(), self.edge.ledger()
            if counted == ledger or monotonic() > end:
                return counted, ledger
            sleep(0.1)

    def given(self, name: str) -> int:
        """Return the answers of all endpoints together to this customer."""
        return sum(tally.given(name) for tally in self.tallies.values())

    def received(self, name: str) -> int:
        """Return the requests of this customer that an endpoint received."""
        return sum(tally.received(name) for tally in self.tallies.values())

    def go_on(self, requests: int) -> None:
        """Wait until this many more answers were given."""
        expected = sum(map(self.given, KINDS)) + requests
        until(lambda: sum(map(self.given, KINDS)) >= expected, f"{requests} answers more", seconds=30)

    def kin(self) -> set[int]:
        """Return all processes of the edge, including stopping supervisors and workers."""
        return self.edge.supervisor.family()

    def settle(self) -> None:
        """Wait until exactly one supervisor with all of its workers is left."""

        def settled() -> bool:
            return whole_crew(self.edge, set()) and self.kin() == {self.edge.supervisor.pid, *self.edge.worker_pids()}

        until(settled, "only the new ones", seconds=DRAIN + LATE)

    # ---- faults

    @contextmanager
    def record_fault(self, kind: FaultKind, endpoints: frozenset[str] = frozenset(), note: str = "") -> Iterator[Fault]:
        """Record that a fault of this kind happens during the block, unless the block states other times."""
        fault = Fault(kind, monotonic(), endpoints=endpoints, note=note)
        self.faults.append(fault)
        yield fault
        fault.ended = min(fault.ended, monotonic())

    def kill_worker(self, draw: random.Random) -> None:
        """Kill one worker with SIGKILL. It is stopped first, so that its connections are known.

        Its successor may still be starting on return; `settle` waits for it.
        """
        pid = draw.choice(self.edge.worker_pids())
        with self.record_fault(FaultKind.KILL_WORKER) as fault:
            sockets.stop(pid)
            fault.ports = sockets.clients(pid, (self.edge.port, self.secure_port))
            kill(pid)

    def hang_worker(self, draw: random.Random) -> None:
        """Stop a worker until its supervisor has replaced it."""
        pid = draw.choice(self.edge.worker_pids())
        with self.record_fault(FaultKind.HANG_WORKER) as fault:
            sockets.stop(pid)
            fault.ports = sockets.clients(pid, (self.edge.port, self.secure_port))
            until(lambda: sockets.state(pid) in "ZX", "the worker that hangs is ended", seconds=30)

    def kill_supervisor(self, draw: random.Random) -> None:
        """Kill the supervisor with SIGKILL. Workers continue to serve, and leave once another supervisor's workers
        serve.
        """
        with self.record_fault(FaultKind.KILL_SUPERVISOR) as fault:
            with self.well:
                orphans = set(self.edge.worker_pids())
                kill(self.edge.supervisor.pid)
                self.edge.supervisor.wait(10)
            self.go_on(draw.randrange(20, 300))
            assert self.kin() == orphans
            self.edge.start()
            self.settle()
            fault.note = f"{len(orphans)} workers served on and left"

    def roll(self, _: random.Random) -> None:
        """Start a new edge beside the old one, which then drains."""
        with self.record_fault(FaultKind.ROLL) as fault:
            old = self.edge.supervisor
            served = self.edge.output.count('"event": "edge serving"')
            self.edge.begin()
            until(lambda: self.edge.output.count('"event": "edge serving"') > served, "the new one serves")
            began = monotonic()
            code = old.wait_after(signal.SIGTERM, DRAIN + LATE)
            assert code == 0, f"the old one ended with {code}"
            fault.note = f"exit code 0 after {monotonic() - began:.1f} s"
            self.settle()

    def restart(self, draw: random.Random, names: tuple[str, ...]) -> None:
        """Kill these endpoints with SIGKILL and start them again on their ports. Returns once the edge knows that they
        are up.
        """
        with (
            self.well,
            self.record_fault(FaultKind.OUTAGE if len(names) > 1 else FaultKind.RESTART, frozenset(names)) as fault,
        ):
            for name in names:
                self._stop_service(name)
            down = monotonic() + draw.uniform(0, 2.5)
            until(lambda: monotonic() >= down, "it has been down for long enough")
            for name in names:
                self._hand.submit(self._start_service, name).result()
            fault.note = f"{', '.join(names)}: {monotonic() - fault.began:.1f} s"
            if len(names) == 1:
                fault.ended = monotonic()  # while the edge does not know yet, the other one is there
            until(self._all_up, "the edge knows that it is back", seconds=30)

    def _all_up(self) -> bool:
        try:
            upstreams = self.edge.status()["upstreams"]
        except (OSError, AssertionError):  # no supervisor at this moment
            return False
        return all(known["up"] for upstream in upstreams.values() for entry in upstream for known in entry["addresses"])

    # ---- endpoints

    def _start_service(self, name: str) -> None:
        port = self.services[name]
        command = [sys.executable, "-m", "loadtest.soak.service", name, port, self.folder / f"{name}.tally"]
        log = self.folder / f"{name}.log"
        self._running[name] = process = Process([str(part) for part in command], log)
        until(lambda: _answers(port) or not process.running, f"{name} listens")
        assert process.running, process.output

    def _stop_service(self, name: str) -> None:
        kill(self._running[name].pid)
        self._running[name].wait(10)


def _answers(port: int) -> bool:
    try:
        return ask(port, HEALTH).status == 200
    except OSError:
        return False
