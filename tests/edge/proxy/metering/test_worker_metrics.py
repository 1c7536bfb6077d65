"""Counting without free rows: no billed usage is lost, and no request fails because of a metric."""

import os
from pathlib import Path
from typing import Any

import pytest

from edgeproxy.base import log
from edgeproxy.edge.counters.index import TableBusyError, TableFullError
from edgeproxy.edge.counters.layout import ALLOCATED, HEADS_APART, LONE_HEAD_WORDS, Layout
from edgeproxy.edge.errors import RejectedError
from edgeproxy.edge.proxy.exchange.snapshot import report_full_table
from edgeproxy.edge.proxy.metering import worker_metrics
from edgeproxy.edge.proxy.metering.worker_metrics import DISCARDING, WorkerMetrics
from tests.support.logs import capture_logs
from tests.support.tables import limits, make
from tests.support.transcript import KEY, Edge, get, ok


class Table:
    """Stands for the meters of a store whose table gives no row: raises `failure` for as long as there is one."""

    def __init__(self, failure: Exception | None) -> None:
        self.failure = failure
        self.full: Any = None
        self.asked = 0

    def counter(self, *key: str) -> str:
        self.asked += 1
        if self.failure is not None:
            raise self.failure
        return "/".join(key)

    histogram = gauge = counter


class Store:
    """The parts of a store that WorkerMetrics takes."""

    folder = Path("/nowhere")

    def __init__(self, meters: Exception | None = None, billing: Exception | None = None) -> None:
        self.meters = Table(meters)
        self.billing = Table(billing)


def test_a_metric_without_a_row_is_counted_nowhere_and_asked_for_again() -> None:
    store = Store(meters=TableFullError())
    counted = WorkerMetrics(store)
    for _ in range(2):
        assert counted.get_request_counter("v1", "basic", 200) is DISCARDING
        counted.get_request_counter("v1", "basic", 200).add(1)
        counted.count_auth_failure("missing")
        counted.count_upstream_error("api", "dns_error")
        for observe in (counted.observe_first_token, counted.observe_output_token):
            observe("v1", 0.1)
        counted.observe_limit_wait(0.1)
        for set_number in (counted.set_upstream_connections, counted.set_http2_connections, counted.set_held_bytes):
            set_number(1)
        assert DISCARDING in counted.get_refusal_counters("v1", "basic", ("basic",))
    store.meters.failure = None
    assert counted.get_request_counter("v1", "basic", 200) == "edge_requests_total/v1/basic/200"
    assert DISCARDING not in counted.get_refusal_counters("v1", "basic", ("basic",))


def test_a_counter_is_looked_up_once() -> None:
    store = Store()
    counted = WorkerMetrics(store)
    for _ in range(3):
        counted.get_request_counter("v1", "basic", 200)
        counted.get_refusal_counters("v1", "basic", ("basic", "day"))
    assert store.meters.asked == 1 + 3


def test_refusal_by_two_limits_counts_one_request_and_two_refusals() -> None:
    assert WorkerMetrics(Store()).get_refusal_counters("v1", "basic", ("basic", "day")) == (
        "edge_requests_total/v1/basic/429",
        "edge_rate_limited_total/basic/basic/enforce",
        "edge_rate_limited_total/basic/day/enforce",
    )


def test_request_that_cannot_be_billed_answers_503() -> None:
    with pytest.raises(RejectedError) as raised:
        WorkerMetrics(Store(billing=TableBusyError())).get_usage_counter("acme", "requests", "v1")
    assert (raised.value.status, raised.value.close) == (503, False)
    assert raised.value.fields == b"Retry-After: 1\r\n"


def test_full_table_is_logged_once_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(log, "monotonic", lambda: now[0])
    counted = WorkerMetrics(Store(meters=TableFullError()))
    with capture_logs() as lines:
        for _ in range(5):
            counted.report_full_table("customers")
            counted.report_full_table("usage")
        assert sorted(line["about"] for line in lines) == ["customers", "metrics", "usage"]
        now[0] += worker_metrics.LOG_SECONDS
        counted.report_full_table("customers")
    assert sorted(line["about"] for line in lines) == ["customers", "customers", "metrics", "metrics", "usage"]


def test_a_table_that_cannot_grow_is_not_called_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = Layout("customers", rows=1000, columns=2, ring=32, cells=28, width=LONE_HEAD_WORDS, parts=HEADS_APART)
    table = limits(make(tmp_path, layout), 0)
    words, counted = table.words, WorkerMetrics(Store(meters=TableFullError()))
    words[ALLOCATED] = 1
    table.find(table.make_key(b"acme"), 1000, 0.0)

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", fail)
    with capture_logs() as lines:
        with pytest.raises(TableFullError):
            table.find(table.make_key(b"globex"), 1000, 0.0)
        for _ in range(2):
            report_full_table(counted, table)
        monkeypatch.undo()
        table.find(table.make_key(b"globex"), 1000, 0.0)
        report_full_table(counted, table)
    lines = [(line["event"], line.get("error")) for line in lines if line["about"] == "customers"]
    assert lines == [("a table cannot grow", "[Errno 28] No space left on device"), ("a table is full", None)]


async def test_a_request_that_cannot_be_billed_now_is_refused_and_passes_later(
    edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    await edge.starts()
    table = edge.worker.store.billing.table
    own = table.own

    def busy(*key: object) -> int:
        raise TableBusyError

    monkeypatch.setattr(table, "own", busy)
    answer = await edge.refuses(get("/v1/x", f"X-API-Key: {KEY}"))
    assert (answer.status, answer["Retry-After"]) == (503, "1")
    monkeypatch.setattr(table, "own", own)
    _, answer = await edge.passes(get("/v1/x", f"X-API-Key: {KEY}"), ok())
    assert answer.status == 200
    assert edge.usage() == {("acme", "requests", "v1"): 1}
