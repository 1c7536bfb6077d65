"""What the client has accepted is counted, once: whatever is killed, refused or full."""

import random
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from edgeproxy.client import EventClient, QueueBusyError, QueueFullError
from edgeproxy.client.event_client import take_batch
from edgeproxy.client.queue import Queue
from loadtest.testbed.collector import SERVICE, Collector, checked
from loadtest.testbed.postgresql import Postgresql
from loadtest.testbed.process import Process, kill
from loadtest.testbed.waiting import until
from tests.client.reporter import reports
from tests.support.collector_fixtures import KINDS

METERS = {name: {"count": "events", "dimensions": {"model": 50, "agent": 50}} for name in ("tokens", "runs")}
CUSTOMERS = [f"c{number}" for number in range(5)]
REPORTERS = 4
Key = tuple[str, str, str, str]


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", KINDS)
def test_each_event_of_clients_that_are_killed_counts_once(
    kind: str, tmp_path: Path, seed: int, pytestconfig: pytest.Config
) -> None:
    print(f"seed {seed}")
    count = 250_000 if pytestconfig.getoption("soak") else 300
    with ExitStack() as ends:
        server = ends.enter_context(closing(Postgresql(durable=True))) if kind == "postgresql" else None
        url = server.database() if server else f"sqlite:///{tmp_path}/ledger.db"
        settings: dict[str, Any] = {"meters": METERS, "customers": {name: {"tier": "basic"} for name in CUSTOMERS}}
        collector = ends.enter_context(closing(Collector(tmp_path / "collector", url, **settings))).start()
        reporters = [Reporter(ends, tmp_path, number, count, collector.port) for number in range(REPORTERS)]
        wanted: Counter[Key] = Counter()
        for reporter in reporters:
            wanted += reporter.wanted()
        began = time.monotonic()
        for reporter in reporters:
            reporter.start()
        steps = range(9) if pytestconfig.getoption("soak") else (2, 4, 6)
        with_kills(collector, server, reporters, sum(wanted.values()), steps, random.Random(seed))
        for reporter in reporters:
            until(lambda: not reporter.process.running, "it has reported all", seconds=3300)  # noqa: B023
            assert reporter.process.wait(10.0) == 0, reporter.process.output
            assert reporter.accepted == 2 * count
        print(f"{kind}: {2 * REPORTERS * count} reports in {time.monotonic() - began:.1f} s")

        rows = collector.usage(by="customer,meter,model,agent")["rows"]
        found = {tuple(row[name] for name in ("customer", "meter", "model", "agent")): row["value"] for row in rows}
        assert found == wanted
        code, said = checked(collector)
        assert (code, f"{REPORTERS * count} events" in said) == (0, True), said


class Reporter:
    """A service that reports, started again where it left off each time that it is killed."""

    def __init__(self, ends: ExitStack, folder: Path, number: int, count: int, port: int) -> None:
        self._folder, self._number, self._count, self._base = folder / f"r{number}", number, count, int(time.time())
        self._folder.mkdir()
        said = (f"http://127.0.0.1:{port}", SERVICE, self._folder, number, count, self._base)
        self._command = [sys.executable, "-m", "tests.client.reporter", *map(str, said)]
        ends.callback(self.kill)

    def start(self) -> None:
        self.process = Process(self._command, self._folder / "log")

    def kill(self) -> None:
        kill(self.process.pid)
        self.process.wait(10.0)

    @property
    def accepted(self) -> int:
        file = self._folder / "accepted"
        return file.stat().st_size if file.exists() else 0

    def wanted(self) -> Counter[Key]:
        """What it has to say, counted by somebody else."""
        found: Counter[Key] = Counter()
        for report in {report.id: report for report in reports(self._number, self._count, self._base)}.values():
            said = report.dimensions
            found[report.customer, report.meter, said.get("model", ""), said.get("agent", "")] += report.value
        return found


def with_kills(
    collector: Collector,
    server: Postgresql | None,
    reporters: list[Reporter],
    total: int,
    tenths: Sequence[int],
    chance: random.Random,
) -> None:
    """Kill a reporter at each of these tenths of the way, the collector and the database too at some of them."""

    def counted() -> int:
        return int(sum(row["value"] for row in collector.usage(by="meter")["rows"]))

    until(lambda: any(reporter.accepted for reporter in reporters), "they report", seconds=60)
    for tenth in tenths:
        until(lambda: counted() >= total * tenth // 10, f"{tenth} tenths are counted", seconds=3000)  # noqa: B023
        if tenth in (2, 6):
            collector.kill()
            collector.start()
        if server is not None and tenth in (4, 6):
            server.kill()
            server.start()
        reporter = chance.choice(reporters)
        reporter.kill()
        reporter.start()


# ---- what it is told, and what it has room for


def test_what_is_refused_is_told_and_holds_up_nothing(sqlite_collector: Collector, tmp_path: Path) -> None:
    told: list[tuple[str, str]] = []

    def rejected(event: dict[str, Any], error: str) -> None:
        told.append((event["id"], error))

    url = f"http://127.0.0.1:{sqlite_collector.port}"
    with closing(EventClient(url, SERVICE, queue=tmp_path, source="s", rejected=rejected)) as client:
        one = client.report("acme", "nothing", 3)
        assert client.flush(30.0)
        assert told == [(one, "meter: nothing is no meter that counts events")]
        with pytest.raises(ValueError, match="is no name"):
            client.report("a b", "tokens")
        with pytest.raises(ValueError, match="value -1"):
            client.report("acme", "tokens", -1)
        with pytest.raises(QueueBusyError):
            EventClient(url, SERVICE, queue=tmp_path, source="s")
    wrong = EventClient(url, "no-token", queue=tmp_path, source="s")
    wrong.report("acme", "tokens")
    assert not wrong.flush(0.5)
    assert not wrong.close(0.0)
    assert len(list(tmp_path.glob("*.jsonl"))) == 1, "what was accepted is still there"


def test_the_caller_hears_where_there_is_no_room(tmp_path: Path) -> None:
    with ExitStack() as ends:
        queue = Queue(tmp_path, 25)
        ends.callback(queue.close)
        queue.add(b"x" * 19 + b"\n")
        with pytest.raises(QueueFullError):
            queue.add(b"xxxxxx\n")
        segment = queue.oldest()
        assert segment is not None
        segment.write_bytes(segment.read_bytes() + b"torn")  # As by a power cut.
        assert queue.lines(segment) == [b"x" * 19]
        queue.remove(segment)
        assert queue.oldest() is None


def test_a_batch_is_no_larger_than_a_request_may_be() -> None:
    lines = [b"x" * 600_000] * 3
    assert len(take_batch(lines, 1000)) == 1
    assert len(take_batch([b"x" * 2_000_000], 1000)) == 1
    assert len(take_batch([b"x"] * 5, 2)) == 2
