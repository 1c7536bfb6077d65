"""What the client has accepted is counted, once: whatever is killed, refused or full."""

import random
import sys
import time
from collections import Counter
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from edgeproxy.client import EventClient, QueueBusy, QueueFull
from edgeproxy.client.client import batch
from edgeproxy.client.queue import Queue
from tests.client.reporter import reports
from tests.support.collector import SERVICE, Collector, checked
from tests.support.collector_fixtures import StartCollector
from tests.support.process import Process, kill
from tests.support.waiting import until

METERS = {name: {"count": "events", "dimensions": {"model": 50, "agent": 50}} for name in ("tokens", "runs")}
REPORTERS = 4
Key = tuple[str, str, str, str]


@pytest.mark.timeout(3600)
def test_each_event_of_clients_that_are_killed_counts_once(
    start_collector: StartCollector, tmp_path: Path, seed: int, pytestconfig: pytest.Config
) -> None:
    print(f"seed {seed}")
    chance = random.Random(seed)
    count = 250_000 if pytestconfig.getoption("soak") else 300
    customers = {f"c{number}": {"tier": "basic"} for number in range(5)}
    collector = start_collector(meters=METERS, customers=customers)
    base, began = int(time.time()), time.monotonic()
    folders = [tmp_path / f"reporter-{number}" for number in range(REPORTERS)]

    def start(number: int) -> Process:
        folders[number].mkdir(exist_ok=True)
        said = (f"http://127.0.0.1:{collector.port}", SERVICE, folders[number], number, count, base)
        return Process([sys.executable, "-m", "tests.client.reporter", *map(str, said)], tmp_path / f"log-{number}")

    def accepted(number: int) -> int:
        file = folders[number] / "accepted"
        return file.stat().st_size if file.exists() else 0

    running = [start(number) for number in range(REPORTERS)]
    try:
        for kills in range(4):
            number = chance.randrange(REPORTERS)
            until(lambda: accepted(number) > 0 or not running[number].running, "it reports", seconds=60)  # noqa: B023
            if kills == 2:
                collector.kill()
                collector.start()
            kill(running[number].pid)
            running[number].wait(10.0)
            running[number] = start(number)
        for number, process in enumerate(running):
            until(lambda: not process.running, "it has reported all", seconds=3300)  # noqa: B023
            assert process.wait(10.0) == 0, process.output
            assert accepted(number) == 2 * count
    finally:
        for process in running:
            kill(process.pid)
    print(f"{2 * REPORTERS * count} reports in {time.monotonic() - began:.1f} s")

    wanted: Counter[Key] = Counter()
    for number in range(REPORTERS):
        for report in {report.id: report for report in reports(number, count, base)}.values():
            said = report.dimensions
            wanted[report.customer, report.meter, said.get("model", ""), said.get("agent", "")] += report.value
    rows = collector.usage(by="customer,meter,model,agent")["rows"]
    found = {tuple(row[name] for name in ("customer", "meter", "model", "agent")): row["value"] for row in rows}
    assert found == wanted
    code, said_ = checked(collector)
    assert (code, f"{REPORTERS * count} events" in said_) == (0, True), said_


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
        with pytest.raises(QueueBusy):
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
        with pytest.raises(QueueFull):
            queue.add(b"xxxxxx\n")
        segment = queue.oldest()
        assert segment is not None
        segment.write_bytes(segment.read_bytes() + b"torn")  # As by a power cut.
        assert queue.lines(segment) == [b"x" * 19]
        queue.remove(segment)
        assert queue.oldest() is None


def test_a_batch_is_no_larger_than_a_request_may_be() -> None:
    lines = [b"x" * 600_000] * 3
    assert len(batch(lines, 1000)) == 1
    assert len(batch([b"x" * 2_000_000], 1000)) == 1
    assert len(batch([b"x"] * 5, 2)) == 2
