"""An edge that ships what it counts over a bad network, on a bad disk, with a wrong clock, and dies at any step."""

import shutil
import signal
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from edgeproxy import cli
from edgeproxy.edge.usage import identity
from edgeproxy.wire.batch import MINUTE_SECONDS
from loadtest.testbed.collector import EDGE, Collector
from loadtest.testbed.customers import UNLIMITED, people
from loadtest.testbed.edge import START, Edge
from loadtest.testbed.load_clients import Account, Load, Plan
from loadtest.testbed.ports import HOST
from loadtest.testbed.relay import Relay
from loadtest.testbed.sealing import batches
from loadtest.testbed.step_kill import CLOCK, FULL, OFFSET, said, stepping
from loadtest.testbed.waiting import until

EVERY = 0.2
"""Seconds between two seals."""
ARRIVED = 180.0
"""Seconds within which all that was counted is in the ledger, on a busy machine."""
PATHS = ["/?wait=5", "/?wait=20", "POST /?wait=10", "/?status=404&wait=10", "/?status=503&wait=10", "/?wait=40"]
"""What clients ask for: at a steady pace, for what is measured is not speed."""
CUSTOMERS = ["acme", "bolt", UNLIMITED]


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
        self.clock = 0.0
        """By how many seconds the supervisor's clock is wrong."""
        self.environ = {CLOCK: str(self._clock), FULL: str(self._full)}
        self.command = stepping("-", "edge")
        self.collector = collector
        self.accounts: list[Account] = []
        self._loads: list[Load] = []
        self._numbers = 0

    def close(self) -> None:
        try:
            super().close()
        finally:
            self.relay.__exit__()

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
        until(lambda: not supervisor.running, f"the edge is killed {where}", seconds=START)
        assert supervisor.wait(1) == -signal.SIGKILL, self.output[-2000:]
        assert said(where) in self.output

    def kill_all(self) -> None:
        """kill -9 of the supervisor and all workers."""
        self.supervisor.kill_all()
        self.supervisor.wait(10)

    def set_clock(self, seconds: float) -> None:
        """By how much the supervisor's clock is wrong from now on."""
        self.clock = seconds
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

    def spool(self, *arguments: str) -> tuple[int, str]:
        """The exit code of `edgeproxy spool`, and what it said."""
        done = CliRunner().invoke(cli.app, ["spool", *arguments, "-c", str(self.file)])
        return done.exit_code, done.output

    @property
    def state(self) -> Path:
        """The state directory."""
        return Path(self.settings["state"])

    @property
    def id(self) -> str:
        """What the collector knows it by."""
        mine = identity.load_identity(self.state)
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

    def sealed(self) -> dict[str, int]:
        """What its batches come to, by customer: they are a chain, all of which the collector has."""
        sums: Counter[str] = Counter()
        found = batches(self.state / "spool", torn=True)
        for batch in found:
            for customer, _, _, value, *_ in batch.rows:
                sums[customer] += value
            assert batch.long or batch.until <= batch.minute + MINUTE_SECONDS
        assert self.watermark == found[-1].last
        return dict(sums)


def dies_at(collector: Collector, step: str, number: int) -> None:
    """In the place of the collector there is one that is killed at a step; then there is none."""
    usual, where = collector.command, f"{step} {number}"
    collector.kill()
    collector.command = stepping(where, "collector")
    process = collector.begin()
    until(lambda: not process.running, f"the collector is killed {where}", seconds=START)
    assert said(where) in process.output
    collector.command = usual


def copied(collector: Collector, to: Path) -> None:
    """A backup of its database, which is in use, and of SQLite."""
    with closing(sqlite3.connect(collector.database)) as source, closing(sqlite3.connect(to)) as target:
        source.backup(target)


def put_back(collector: Collector, copy: Path) -> None:
    """It is killed, and goes on with an earlier copy of its database."""
    collector.kill()
    for suffix in ("-wal", "-shm"):
        Path(f"{collector.database}{suffix}").unlink(missing_ok=True)
    shutil.copy(copy, collector.database)
    collector.start()
