from pathlib import Path

import pytest

from edgeproxy.base.latency_buckets import LATENCY_BUCKETS
from edgeproxy.edge.counters import columns
from edgeproxy.edge.counters.meters import HISTOGRAM_WORDS, Metrics, UsageCounter, UsageMeters
from edgeproxy.edge.counters.rows import TableFullError
from edgeproxy.edge.counters.tallies import TallyTable
from edgeproxy.edge.counters.usage_key import parse_usage_key
from edgeproxy.edge.metrics import METRICS
from tests.support import tables
from tests.support.tables import USAGE, make, opened, tallies


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return make(tmp_path, tables.METRICS)


@pytest.fixture
def metrics(path: Path) -> Metrics:
    return Metrics(tallies(path, 0))


def totals(path: Path, live: frozenset[int] = frozenset({0})) -> dict[bytes, list[int]]:
    return {key: words for _, key, words in tallies(path).totals(live)}


def test_metric_of_one_name_and_labels_is_one_object(metrics: Metrics) -> None:
    assert metrics.counter("edge_auth_failures_total", "unknown") is metrics.counter(
        "edge_auth_failures_total", "unknown"
    )
    assert metrics.gauge("edge_connections", "client") is metrics.gauge("edge_connections", "client")
    assert metrics.histogram("edge_overhead_seconds") is metrics.histogram("edge_overhead_seconds")


def test_gauge_reports_its_last_value(metrics: Metrics, path: Path) -> None:
    gauge = metrics.gauge("edge_connections", "client")
    gauge.set(5)
    gauge.set(2)
    assert totals(path)[b"edge_connections\0client"][0] == 2
    assert totals(path, frozenset())[b"edge_connections\0client"][0] == 0


def worker(path: Path) -> tuple[Metrics, TallyTable]:
    """Return the metrics and the table of a worker that has just acquired a column."""
    file = opened(path)
    table = TallyTable(file, columns.acquire_column([file]))
    table.clear_gauges()
    return Metrics(table), table


def test_a_shared_gauge_is_one_number_in_all_workers(path: Path) -> None:
    gauges = [worker(path)[0].shared_gauge("edge_connections", "client") for _ in range(3)]
    for n, gauge in enumerate(gauges, 1):
        gauge.add(n)
    assert [gauge.total() for gauge in gauges] == [6, 6, 6]
    assert [gauge.here for gauge in gauges] == [1, 2, 3]
    gauges[2].add(-2)
    assert [gauge.total() for gauge in gauges] == [4, 4, 4]
    assert totals(path, frozenset({0, 1, 2}))[b"edge_connections\0client"][0] == 4


def test_no_more_is_claimed_than_the_bound_by_all_workers_together(path: Path) -> None:
    one, two = (worker(path)[0].shared_gauge("edge_connections", "client") for _ in range(2))
    assert [one.claim(30), two.claim(3), one.claim(3)] == [True, True, True]
    assert not one.claim(3)
    assert not two.claim(3)
    assert (one.here, two.here, one.total()) == (2, 1, 3)
    two.add(-1)
    assert one.claim(3)
    assert not two.claim(3)


def test_shared_gauge_frees_places_of_a_dead_worker(path: Path) -> None:
    metrics, alive = worker(path)
    gauge = metrics.shared_gauge("edge_connections", "client")
    others, dead = worker(path)
    others.shared_gauge("edge_connections", "client").add(5)
    assert not gauge.claim(5)
    dead.file.close()
    assert not gauge.claim(5), "the gauge counts as alive until the next look"
    alive.forget_living()
    assert gauge.claim(5)
    assert gauge.total() == 1


def test_successor_counts_gauges_in_the_column_of_a_dead_worker(path: Path) -> None:
    gauge = worker(path)[0].shared_gauge("edge_connections", "client")
    others, dead = worker(path)
    others.shared_gauge("edge_connections", "client").add(5)
    dead.file.close()
    assert gauge.total() == 0
    successor, table = worker(path)
    assert table.column == dead.column
    assert gauge.total() == 0
    successor.shared_gauge("edge_connections", "client").add(2)
    assert gauge.total() == 2


def test_a_shared_gauge_never_falls_below_none(metrics: Metrics) -> None:
    gauge = metrics.shared_gauge("edge_connections", "client")
    with pytest.raises(ValueError, match="memoryview"):
        gauge.add(-1)


def test_histogram_counts_a_duration_in_the_first_fitting_bucket(metrics: Metrics, path: Path) -> None:
    histogram = metrics.histogram("edge_overhead_seconds")
    for seconds in (0.0, LATENCY_BUCKETS[0], 0.00011, 9.99, 10.0, 11.0):
        histogram.observe(seconds)
    assert histogram.count == 6
    assert not any(totals(path)[b"edge_overhead_seconds"])
    metrics.settle()
    metrics.settle()
    assert histogram.count == 6
    words = totals(path)[b"edge_overhead_seconds"]
    assert words[:2] == [2, 1]
    assert words[len(LATENCY_BUCKETS) - 1 : len(LATENCY_BUCKETS) + 1] == [2, 1]
    assert words[HISTOGRAM_WORDS - 1] == 30_990_210_000
    after = Metrics(tallies(path, 0))
    after.histogram("edge_overhead_seconds").observe(11.0)
    after.settle()
    assert totals(path)[b"edge_overhead_seconds"][len(LATENCY_BUCKETS)] == 2
    assert totals(path)[b"edge_overhead_seconds"][HISTOGRAM_WORDS - 1] > 41 * 1e9


def test_every_histogram_fits_its_row() -> None:
    assert tables.METRICS.width >= HISTOGRAM_WORDS
    assert {metric.kind for metric in METRICS.values()} == {"counter", "gauge", "histogram"}


def test_undeclared_metric_raises_value_error(metrics: Metrics) -> None:
    with pytest.raises(ValueError, match="no counter edge_nonsense_total with 0 labels"):
        metrics.counter("edge_nonsense_total")
    with pytest.raises(ValueError, match="no gauge edge_requests_total"):
        metrics.gauge("edge_requests_total", "v1", "basic", "200")
    with pytest.raises(ValueError, match="no histogram edge_request_seconds with 2 labels"):
        metrics.histogram("edge_request_seconds", "v1", "v2")


@pytest.fixture
def usage(tmp_path: Path) -> TallyTable:
    return tallies(make(tmp_path, USAGE), 0)


def test_counters_of_one_usage_add_up(usage: TallyTable) -> None:
    meters = UsageMeters(usage)
    first, second = (meters.counter("acme", "requests", "v1") for _ in range(2))
    first.add(2)
    second.add(3)
    first.add(4)
    assert [words for _, _, words in usage.totals()] == [[9]]


def count_in_one_row(usage: TallyTable, *counters: UsageCounter) -> bool:
    """Count with each of these, and return whether one row has it all."""
    before = {key: words for _, key, words in usage.totals()}
    for counter in counters:
        counter.add(1)
    return [len(counters)] in [[words[0] - before[key][0]] for _, key, words in usage.totals()]


def test_usage_without_a_free_row_counts_in_the_shared_fallback_row(usage: TallyTable) -> None:
    full: list[str] = []
    meters = UsageMeters(usage, full=lambda: full.append("full"))
    nobody = meters.counter("-", "requests", "-")
    kept = [meters.counter(f"customer-{number}", "requests", "v1") for number in range(USAGE.rows - 1)]
    assert full == []
    assert count_in_one_row(usage, meters.counter("one-more", "requests", "v1"), nobody)
    assert full == ["full"]
    split = '{"model":"m1"}'
    assert count_in_one_row(usage, meters.counter("customer-0", "requests", "v1", split), kept[0])
    assert full == ["full", "full"]
    too_long = '{"model":"%s"}' % ("m" * 250)
    assert count_in_one_row(usage, meters.counter("customer-0", "requests", "v1", too_long), kept[0])
    with pytest.raises(TableFullError):
        meters.counter("acme", "egress", "v1")
    assert len(kept) == USAGE.rows - 1


def test_full_usage_table_counts_as_the_anonymous_customer(usage: TallyTable) -> None:
    meters = UsageMeters(usage)
    nobody = meters.counter("-", "requests", "-")
    for number in range(USAGE.rows):
        meters.counter(f"customer-{number}", "requests", "v1")
    assert count_in_one_row(usage, meters.counter("one-more", "requests", "v1"), nobody)


def test_split_usage_counts_unsplit_if_no_row_or_key_fits(usage: TallyTable) -> None:
    full: list[str] = []
    meters = UsageMeters(usage, full=lambda: full.append("full"))
    nobody = meters.counter("-", "tokens", "-")
    whole = meters.counter("acme", "tokens", "v1")
    split = meters.counter("acme", "tokens", "v1", '{"model":"m1"}')
    split.add(2)
    assert (b"acme\0tokens\0v1\0model=m1", [2]) in [(key, words) for _, key, words in usage.totals()]
    assert parse_usage_key(b"acme\0tokens\0v1\0model=m1") == ("acme", "tokens", "v1", '{"model":"m1"}')
    assert parse_usage_key(b"acme\0tokens\0v1") == ("acme", "tokens", "v1", "")
    with pytest.raises(ValueError, match="counts no usage"):
        parse_usage_key(b"acme\0tokens\0v1\0model")
    too_long = '{"model":"%s"}' % ("m" * 300)
    assert count_in_one_row(usage, meters.counter("acme", "tokens", "v1", too_long), whole)
    others = [meters.counter(f"customer-{number}", "tokens", "v1") for number in range(USAGE.rows - 3)]
    # No row is left.
    assert count_in_one_row(usage, meters.counter("acme", "tokens", "v1", '{"model":"m2"}'), whole)
    assert (full, len(others)) == (["full"], USAGE.rows - 3)
    assert not count_in_one_row(usage, nobody, whole)
