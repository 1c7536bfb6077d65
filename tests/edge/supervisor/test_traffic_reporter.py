"""A supervisor's traffic reports: the growth of the workers' metrics in each minute, reported once."""

import asyncio
import time
from collections.abc import Iterator
from functools import partial
from http import HTTPStatus
from pathlib import Path

import pytest

from edgeproxy.edge.counters.store import Store
from edgeproxy.edge.messages import ErrorsCounted
from edgeproxy.edge.supervisor.table_reader import TableReader
from edgeproxy.edge.supervisor.traffic import TrafficReporter
from edgeproxy.edge.usage.answer import Reply
from edgeproxy.edge.usage.transport import HttpTransport
from edgeproxy.wire.batch import format_batch
from edgeproxy.wire.traffic_report import ERRORS_MAX, PATH, ROUTES_MAX, ErrorGroup, TrafficReport, dump_report
from loadtest.testbed.batch_chains import Chain
from loadtest.testbed.collector import EDGE, Collector

BEGIN = int(time.time()) // 60 * 60 - 600
ACCEPTED, BUSY, MISSING = Reply(HTTPStatus.OK, b"{}"), Reply(HTTPStatus.SERVICE_UNAVAILABLE, b""), Reply(404, b"")


class Edge:
    """A state directory, a worker that counts, and a clock."""

    def __init__(self, folder: Path) -> None:
        self.now = float(BEGIN)
        self.store = Store.prepare(folder / "state", workers=1, customers=40, addresses=8)
        self.worker = Store.join(folder / "state")
        self.sent: list[TrafficReport] = []
        self.abroad: list[TrafficReport] = []
        self.reply: Reply | OSError | None = ACCEPTED

    async def send(self, report: TrafficReport, residency: str) -> Reply | None:
        (self.abroad if residency else self.sent).append(report)
        if isinstance(self.reply, OSError):
            raise self.reply
        return self.reply

    def reporter(self) -> TrafficReporter:
        return TrafficReporter(TableReader(self.store), "here", self.send, lambda: self.now)

    def answers(self, route: str, status: str, requests: int, seconds: float = 0.003) -> None:
        self.worker.meters.counter("edge_requests_total", route, "gold", status).add(requests)
        histogram = self.worker.meters.histogram("edge_request_seconds", route)
        for _ in range(requests):
            histogram.observe(seconds)
        self.worker.meters.settle()

    def turn(self, reporter: TrafficReporter, minutes: int = 1) -> None:
        self.now += 60 * minutes
        asyncio.run(reporter.turn())


@pytest.fixture
def edge(tmp_path: Path) -> Iterator[Edge]:
    made = Edge(tmp_path)
    yield made
    made.worker.close()
    made.store.close()


def test_each_minute_has_its_growth_by_class_and_route(edge: Edge) -> None:
    reporter = edge.reporter()
    edge.answers("v1", "200", 50)
    edge.turn(reporter)
    assert not edge.sent, "earlier counts belong to no known minute"
    for status, requests in (("200", 5), ("429", 3), ("404", 2), ("503", 1), ("5xx", 1)):
        edge.answers("v1", status, requests)
    edge.answers("v2", "200", 4, seconds=20.0)
    edge.turn(reporter)
    (report,) = edge.sent
    assert (report.minute, report.region) == (BEGIN + 60, "here")
    assert report.routes["v1"][:4] == (12, 3, 2, 2)
    assert report.routes["v1"].buckets[5] == 12
    assert report.routes["v2"].buckets[-1] == 4
    assert report.total.requests == 16
    edge.turn(reporter)
    assert (edge.sent[1].total.requests, edge.sent[1].routes) == (0, {}), "an idle minute is no gap"


def test_started_or_suspended_supervisor_leaves_a_gap_without_duplicates(edge: Edge) -> None:
    reporter = edge.reporter()
    edge.turn(reporter)
    edge.answers("v1", "200", 7)
    edge.turn(reporter)
    edge.answers("v1", "200", 100)
    edge.turn(reporter, minutes=3)
    edge.answers("v1", "200", 2)
    edge.turn(reporter)
    killed = edge.reporter()
    edge.answers("v1", "200", 100)
    edge.turn(killed)
    edge.answers("v1", "200", 3)
    edge.turn(killed)
    minutes = [((report.minute - BEGIN) // 60, report.total.requests) for report in edge.sent]
    assert minutes == [(1, 7), (5, 2), (7, 3)]


def test_reports_wait_for_an_unreachable_collector_and_are_dropped_if_refused(edge: Edge) -> None:
    reporter = edge.reporter()
    edge.turn(reporter)
    for reply in (OSError("away"), BUSY, ACCEPTED):
        edge.reply = reply
        edge.turn(reporter)
    minutes = [(report.minute - BEGIN) // 60 for report in edge.sent]
    assert minutes == [1, 1, 1, 2, 3], "in order, until something fails"
    edge.sent.clear()
    edge.reply = OSError("away")
    edge.turn(reporter)
    edge.reply = MISSING
    edge.turn(reporter)
    edge.reply = ACCEPTED
    edge.turn(reporter)
    assert [(report.minute - BEGIN) // 60 for report in edge.sent] == [4, 4, 6], "a collector of an earlier version"
    edge.sent.clear()
    edge.reply = OSError("away")
    for _ in range(70):
        edge.turn(reporter)
    edge.sent.clear()
    edge.reply = ACCEPTED
    edge.turn(reporter)
    assert len(edge.sent) == 60, "reports older than an hour are dropped"


def test_a_report_names_the_busiest_routes_and_its_total_has_all(edge: Edge) -> None:
    reporter = edge.reporter()
    edge.turn(reporter)
    for number in range(ROUTES_MAX + 5):
        edge.answers(f"route-{number}", "200", 1 if number < 5 else 2)
    edge.turn(reporter)
    (report,) = edge.sent
    assert len(report.routes) == ROUTES_MAX
    assert "route-0" not in report.routes
    assert report.total.requests == 2 * ROUTES_MAX + 5


def test_traffic_report_lists_errors_of_the_minute_and_counts_the_excess(edge: Edge) -> None:
    reporter = edge.reporter()
    reporter.record_errors(ErrorsCounted([("acme", "v1", 500, "edge", 9)], 0))
    edge.turn(reporter)
    many = [(f"customer-{number}", "v1", 503, "upstream", 1) for number in range(ERRORS_MAX + 2)]
    reporter.record_errors(ErrorsCounted([*many, ("acme", "v1", 502, "edge", 4)], 5))
    reporter.record_errors(ErrorsCounted([("acme", "v1", 502, "edge", 3)], 0))
    edge.turn(reporter)
    edge.turn(reporter)
    first, second = edge.sent
    assert first.minute == BEGIN + 60
    assert first.errors[ErrorGroup("acme", "v1", 502, "edge")] == 7
    assert len(first.errors) == ERRORS_MAX, "the report keeps the most frequent errors"
    assert first.unnamed == 5 + 3
    assert (second.errors, second.unnamed) == ({}, 0)


def test_collector_accepts_a_traffic_report_of_an_edge(edge: Edge, sqlite_collector: Collector) -> None:
    chain, reporter = Chain(), edge.reporter()

    async def work() -> None:
        http = HttpTransport(f"http://127.0.0.1:{sqlite_collector.port}", EDGE)
        batch = chain.next()
        assert (await http(batch, format_batch(batch))).status == 200

        async def send(report: TrafficReport, residency: str) -> Reply:
            reply = await http.send_report(chain.edge, PATH, dump_report(report._replace(region=chain.region)))
            assert reply.status == 200, reply
            return reply

        reporter._send = send
        await reporter.turn()
        await asyncio.to_thread(partial(edge.answers, "v1", "200", 9))
        edge.now += 60
        await reporter.turn()
        await http.close()

    asyncio.run(work())
    groups = sqlite_collector.get("/v1/traffic", by="edge").json()["groups"]
    assert [group["requests"] for group in groups if group["edge"] == chain.edge] == [9]


def test_errors_of_another_residency_are_reported_only_there(edge: Edge) -> None:
    reporter = TrafficReporter(TableReader(edge.store), "here", edge.send, lambda: edge.now, lambda: ("", "us"))
    edge.turn(reporter)
    edge.answers("v1", "503", 5)
    errors = [("anna", "v1", 503, "upstream", 2), ("us:bob", "v1", 503, "edge", 3), ("asia:li", "v1", 500, "edge", 1)]
    reporter.record_errors(ErrorsCounted(errors, 4))
    edge.turn(reporter)
    (home,), (abroad,) = edge.sent, edge.abroad
    assert {group.customer: count for group, count in home.errors.items()} == {"anna": 2}
    assert {group.customer: count for group, count in abroad.errors.items()} == {"bob": 3}
    assert (home.total.requests, home.unnamed) == (5, 4)
    assert (abroad.total.requests, abroad.routes, abroad.unnamed) == (0, {}, 0)
