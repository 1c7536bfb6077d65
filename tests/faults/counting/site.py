"""Real edges, a real collector and a real upstream, with a relay between them, and what must hold of their counts."""

import signal
import sys
from collections import Counter
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, Self

from edgeproxy.usage import identity
from edgeproxy.usage.batch import MINUTE_SECONDS
from tests.faults.counting.relay import CALM, Relay
from tests.faults.counting.stepping import CLOCK, FULL, OFFSET, said
from tests.support.collector import EDGE, Collector, checked
from tests.support.customers import UNLIMITED, people
from tests.support.edge import Edge
from tests.support.load import Account, Load, Plan
from tests.support.ports import HOST
from tests.support.process import kill
from tests.support.sealing import batches
from tests.support.upstream import Upstream
from tests.support.waiting import until

EVERY = 0.2
"""Seconds between two seals."""
STARTED = 60.0
"""Seconds in which an edge is up, or has ended, on a busy machine."""
ARRIVED = 180.0
"""Seconds within which all that was counted is in the ledger, on a busy machine."""
PATHS = ["/?wait=5", "/?wait=20", "POST /?wait=10", "/?status=404&wait=10", "/?status=503&wait=10", "/?wait=40"]
"""What clients ask for: at a steady pace, for what is measured is not speed."""
CUSTOMERS = ["acme", "bolt", UNLIMITED]
STEPPING = "tests.faults.counting.stepping"


def stepping(step: str, command: str) -> tuple[str, ...]:
    """The command of an edge, or a collector, that is killed at a step."""
    return (sys.executable, "-m", STEPPING, step, command, "-c")


class Counted(Edge):
    """An edge that ships what it counts, over a relay of its own, from a region of its own."""

    def __init__(self, folder: Path, upstream: int, collector: Collector, name: str, seed: object, **more: Any) -> None:
        self.relay = Relay(collector.port, f"{seed} {name}")
        self.relay.__enter__()
        usage = {"collector": f"http://{HOST}:{self.relay.port}", "token": EDGE, "every": f"{EVERY:g}s"}
        super().__init__(
            folder, upstream, region=name, usage=usage, **{**people(acme="free", bolt="free"), "drain": "5s", **more}
        )
        self.region = name
        self._clock = folder / "clock"
        self._full = folder / "full"
        self._clock.write_bytes(OFFSET.pack(0.0))
        self.environ = {CLOCK: str(self._clock), FULL: str(self._full)}
        self.command = stepping("-", "edge")
        self.collector = collector
        self.accounts: list[Account] = []
        self._loads: list[Load] = []
        self._numbers = 0

    # ---- its clients

    def load(self, connections: int = 6) -> None:
        """Clients ask, until `unload`."""
        self._numbers += 1
        plan = Plan(self.port, CUSTOMERS, PATHS, connections=connections)
        self._loads.append(Load(self._folder, f"clients-{self._numbers}", plan))

    def unload(self) -> None:
        """They end what they have begun."""
        while self._loads:
            self.accounts.append(self._loads.pop().finish())

    # ---- what is done to it

    def dies_at(self, step: str, number: int) -> None:
        """Start a supervisor that is killed at a step, and wait until it is dead; its workers stay."""
        where = f"{step} {number}"
        self.command = stepping(where, "edge")
        supervisor = self.begin()
        self.command = stepping("-", "edge")
        until(lambda: not supervisor.running, f"the edge is killed {where}", seconds=STARTED)
        assert supervisor.wait(1) == -signal.SIGKILL, self.output[-2000:]
        assert said(where) in self.output

    def start(self, **settings: Any) -> Self:
        supervisor = self.begin(**settings)
        until(lambda: not supervisor.running or self.ready(), "the edge is ready", seconds=STARTED)
        assert supervisor.running, supervisor.output[-3000:]
        return self

    def end(self) -> None:
        # It seals and ships what is left, for some seconds each.
        code = self.supervisor.wait_after(signal.SIGTERM, STARTED)
        assert code == 0, f"exit code {code}: {self.supervisor.output[-3000:]}"
        until(lambda: not self.supervisor.family(), "nothing of the edge is left", seconds=STARTED)

    def kill_all(self) -> None:
        """kill -9 of the supervisor and all workers."""
        for pid in (self.supervisor.pid, *self.supervisor.family()):
            kill(pid)
        self.supervisor.wait(10)

    def set_clock(self, seconds: float) -> None:
        """By how much the supervisor's clock is wrong from now on."""
        with self._clock.open("r+b") as file:
            file.write(OFFSET.pack(seconds))

    def fill_disk(self, full: bool) -> None:
        """Whether the disk has no room for the spool."""
        if full:
            self._full.touch()
        else:
            self._full.unlink(missing_ok=True)

    @property
    def is_full(self) -> bool:
        """Whether it has none."""
        return self._full.exists()

    @property
    def state(self) -> Path:
        """The state directory."""
        return Path(self.settings["state"])

    @property
    def id(self) -> str:
        """What the collector knows it by."""
        mine = identity.load(self.state)
        assert mine is not None
        return mine.id

    @property
    def watermark(self) -> int:
        """The last batch that the collector has of it, as the collector says."""
        edges = self.collector.edges()
        return int(edges[self.id]["watermark"]) if self.id in edges else 0

    # ---- the sums

    def ledger(self) -> dict[str, int]:
        """What the collector counts of it, by customer."""
        rows = self.collector.usage(by="region,customer")["rows"]
        return {row["customer"]: row["value"] for row in rows if row["region"] == self.region}

    def shipped_more(self, count: int = 2) -> None:
        """Wait until so many batches more are acknowledged."""
        wanted = self.watermark + count
        until(lambda: self.watermark >= wanted, f"{count} batches more", seconds=ARRIVED)

    def arrived(self) -> dict[str, int]:
        """Wait until all that was counted is in the ledger; what that is."""

        def same() -> list[dict[str, int]]:
            # Anew each time: a request whose client has given up may be answered, and counted, a while later.
            counted = self.usage()
            return [counted] if self.ledger() == counted else []

        return until(same, f"the ledger has what {self.region} counted", seconds=ARRIVED)[0]

    def answered(self) -> int:
        """Billable answers that clients received whole."""
        return sum(account.answered(customer) for account in self.accounts for customer in CUSTOMERS)

    def lost(self) -> int:
        """Requests that clients sent and got no whole answer to."""
        return sum(sum(account.lost.values()) for account in self.accounts)

    def assert_chain(self, counted: dict[str, int]) -> None:
        """Its batches are a chain, and come to what was counted."""
        sums: Counter[str] = Counter()
        found = batches(self.state / "spool", torn=True)
        for batch in found:
            for customer, _, _, value in batch.rows:
                sums[customer] += value
            assert batch.long or batch.until <= batch.minute + MINUTE_SECONDS
        assert sums == counted
        assert self.watermark == found[-1].last


class Site:
    """All of it, from `with` to its end. The upstream is the edges' together."""

    def __init__(self, folder: Path, seed: int, *, edges: int = 1, database: str | None = None) -> None:
        self.folder = folder
        self._seed = seed
        self._ends = ExitStack()
        self.upstream = Upstream(folder / "upstream")
        self._ends.callback(self.upstream.stop)
        self.collector = Collector(folder / "collector", database or f"sqlite:///{folder}/ledger.db")
        self._ends.enter_context(closing(self.collector))
        self.edges = [self.add(f"region-{number}") for number in range(edges)]

    def add(self, name: str, **settings: Any) -> Counted:
        """An edge more, which is not started."""
        edge = Counted(self.folder / name, self.upstream.port, self.collector, name, self._seed, **settings)
        self._ends.callback(edge.relay.__exit__)
        return self._ends.enter_context(closing(edge))

    @property
    def edge(self) -> Counted:
        """The first one."""
        return self.edges[0]

    def __enter__(self) -> Self:
        try:
            self.collector.start()
            for edge in self.edges:
                edge.start()
        except BaseException:
            self._ends.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.close()

    def given(self) -> int:
        """Billable answers of the upstream."""
        return sum(self.upstream.seen()["billable"].values())

    def assert_exact(self, *, killed: bool) -> str:
        """The network is well again, and everything arrives, once.

        `killed`: clients may have lost answers, which nobody knows of then.
        """
        for edge in self.edges:
            edge.relay.fates = CALM
        counted = {edge: edge.arrived() for edge in self.edges}
        for edge, sums in counted.items():
            edge.relay.late()
            edge.assert_chain(sums)
        ledger = sum(row["value"] for row in self.collector.usage(by="meter")["rows"])
        assert ledger == sum(sum(sums.values()) for sums in counted.values())
        answered, given = sum(edge.answered() for edge in self.edges), self.given()
        lost = sum(edge.lost() for edge in self.edges)
        line = f"answered {answered} <= ledger {ledger} <= given {given}; lost {lost}"
        print(line)
        assert answered <= ledger <= given, line
        assert given - answered <= lost, line
        assert killed or answered == ledger == given, line
        code, found = checked(self.collector)
        assert code == 0, found
        return line
