"""An edge that ships its counts over a bad network, with a bad disk and a wrong clock, and dies at any step."""

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
"""Seconds within which all counts reach the ledger, on a busy machine."""
PATHS = ["/?wait=5", "/?wait=20", "POST /?wait=10", "/?status=404&wait=10", "/?status=503&wait=10", "/?wait=40"]
"""The requests of clients. Their pace is steady, because the test does not measure speed."""
CUSTOMERS = ["acme", "bolt", UNLIMITED]


class Counted(Edge):
    """An edge that ships its counts over a relay of its own, from a region of its own."""

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
        """The error of the supervisor's clock in seconds."""
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
        """Start clients, which send requests until `unload`."""
        self._numbers += 1
        plan = Plan(self.port, CUSTOMERS, PATHS, connections=connections)
        self._loads.append(Load(self._folder, f"clients-{self._numbers}", plan))

    def unload(self) -> None:
        """Let clients finish their requests, and stop them."""
        while self._loads:
            self.accounts.append(self._loads.pop().finish())

    # ---- faults

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
        """Send SIGKILL to the supervisor and all workers."""
        self.supervisor.kill_all()
        self.supervisor.wait(10)

    def set_clock(self, seconds: float) -> None:
        """Set the error of the supervisor's clock."""
        self.clock = seconds
        with self._clock.open("r+b") as file:
            file.write(OFFSET.pack(seconds))

    def fill_disk(self, full: bool) -> None:
        """Fill the spool's disk, or free it."""
        if full:
            self._full.touch()
        else:
            self._full.unlink(missing_ok=True)

    @property
    def is_full(self) -> bool:
        """The spool's disk is full."""
        return self._full.exists()

    def spool(self, *arguments: str) -> tuple[int, str]:
        """Run `edgeproxy spool`; return its exit code and output."""
        done = CliRunner().invoke(cli.app, ["spool", *arguments, "-c", str(self.file)])
        return done.exit_code, done.output

    @property
    def state(self) -> Path:
        """The state directory."""
        return Path(self.settings["state"])

    @property
    def id(self) -> str:
        """The edge's id at the collector."""
        mine = identity.load_identity(self.state)
        assert mine is not None
        return mine.id

    @property
    def watermark(self) -> int:
        """The last batch that the collector reports for this edge."""
        edges = self.collector.edges()
        return int(edges[self.id]["watermark"]) if self.id in edges else 0

    # ---- the sums

    def ledger(self) -> dict[str, int]:
        """Return the collector's counts of this edge, by customer."""
        rows = self.collector.usage(by="region,customer")["rows"]
        return {row["customer"]: row["value"] for row in rows if row["region"] == self.region}

    def shipped_more(self, count: int = 2) -> None:
        """Wait until this many more batches are acknowledged."""
        expected = self.watermark + count
        until(lambda: self.watermark >= expected, f"{count} batches more", seconds=ARRIVED)

    def arrived(self) -> dict[str, int]:
        """Wait until all counts are in the ledger; return them."""

        def same() -> list[dict[str, int]]:
            # Anew each time: a request whose client has given up may be answered, and counted, a while later.
            counted = self.usage()
            return [counted] if self.ledger() == counted else []

        return until(same, f"the ledger has what {self.region} counted", seconds=ARRIVED)[0]

    def answered(self) -> int:
        """Return the number of billable answers that clients received whole."""
        return sum(account.answered(customer) for account in self.accounts for customer in CUSTOMERS)

    def lost(self) -> int:
        """Return the number of requests without a whole answer."""
        return sum(sum(account.lost.values()) for account in self.accounts)

    def sealed(self) -> dict[str, int]:
        """Return the sums of its batches by customer. The batches form a chain that the collector has completely."""
        sums: Counter[str] = Counter()
        found = batches(self.state / "spool", torn=True)
        for batch in found:
            for customer, _, _, value, *_ in batch.rows:
                sums[customer] += value
            assert batch.long or batch.until <= batch.minute + MINUTE_SECONDS
        assert self.watermark == found[-1].last
        return dict(sums)


def dies_at(collector: Collector, step: str, number: int) -> None:
    """Replace the collector with one that is killed at a step, and wait until it is dead."""
    usual, where = collector.command, f"{step} {number}"
    collector.kill()
    collector.command = stepping(where, "collector")
    process = collector.begin()
    until(lambda: not process.running, f"the collector is killed {where}", seconds=START)
    assert said(where) in process.output
    collector.command = usual


def copied(collector: Collector, to: Path) -> None:
    """Back up the collector's SQLite database while it is in use."""
    with closing(sqlite3.connect(collector.database)) as source, closing(sqlite3.connect(to)) as target:
        source.backup(target)


def put_back(collector: Collector, copy: Path) -> None:
    """Kill the collector and restart it on an earlier copy of its database."""
    collector.kill()
    for suffix in ("-wal", "-shm"):
        Path(f"{collector.database}{suffix}").unlink(missing_ok=True)
    shutil.copy(copy, collector.database)
    collector.start()
