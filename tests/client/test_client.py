"""The collector counts each event accepted by the client once, despite kills, refusals and a full queue."""

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
def test_each_event_of_killed_clients_counts_once(
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
            until(lambda: not reporter.process.running, "the reporter has reported all events", seconds=3300)  # noqa: B023
            assert reporter.process.wait(10.0) == 0, reporter.process.output
            assert reporter.accepted == 2 * count
        print(f"{kind}: {2 * REPORTERS * count} reports in {time.monotonic() - began:.1f} s")

        rows = collector.usage(by="customer,meter,model,agent")["rows"]
        found = {tuple(row[name] for name in ("customer", "meter", "model", "agent")): row["value"] for row in rows}
        assert found == wanted
        code, output = checked(collector)
        assert (code, f"{REPORTERS * count} events" in output) == (0, True), output


class Reporter:
    """A service that reports events. After each kill it restarts and continues."""

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
        """Return the expected counts of all its reports, computed independently of the service."""
        counts: Counter[Key] = Counter()
        for report in {report.id: report for report in reports(self._number, self._count, self._base)}.values():
            said = report.dimensions
            counts[report.customer, report.meter, said.get("model", ""), said.get("agent", "")] += report.value
        return counts


def with_kills(
    collector: Collector,
    server: Postgresql | None,
    reporters: list[Reporter],
    total: int,
    tenths: Sequence[int],
    chance: random.Random,
) -> None:
    """Kill a reporter at each of these tenths of the total, and at some also the collector and the database."""

    def counted() -> int:
        return int(sum(row["value"] for row in collector.usage(by="meter")["rows"]))

    until(lambda: any(reporter.accepted for reporter in reporters), "the reporters report", seconds=60)
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


# ---- rejected events and a full queue


def test_rejected_event_is_reported_and_blocks_no_other(sqlite_collector: Collector, tmp_path: Path) -> None:
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


def test_full_queue_raises_an_error(tmp_path: Path) -> None:
    with ExitStack() as ends:
        queue = Queue(tmp_path, 25)
        ends.callback(queue.close)
        queue.add(b"x" * 19 + b"\n")
        with pytest.raises(QueueFullError):
            queue.add(b"xxxxxx\n")
        segment = queue.oldest()
        assert segment is not None
        segment.write_bytes(segment.read_bytes() + b"torn")  # A power cut can leave such a partial line.
        assert queue.lines(segment) == [b"x" * 19]
        queue.remove(segment)
        assert queue.oldest() is None


def test_batch_stays_within_the_size_of_a_request() -> None:
    lines = [b"x" * 600_000] * 3
    assert len(take_batch(lines, 1000)) == 1
    assert len(take_batch([b"x" * 2_000_000], 1000)) == 1
    assert len(take_batch([b"x"] * 5, 2)) == 2
