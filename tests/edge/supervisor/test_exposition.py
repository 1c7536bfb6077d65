import pytest

from edgeproxy.base.latency_buckets import LATENCY_BUCKETS
from edgeproxy.edge.metrics import METRICS
from edgeproxy.edge.supervisor.exemplars import Exemplar
from edgeproxy.edge.supervisor.exposition import render_metrics
from tests.edge.supervisor.scraped import families, value


def test_each_metric_family_is_exposed_before_the_first_count() -> None:
    found = families()
    assert found.keys() == METRICS.keys()
    for name, metric in found.items():
        assert (metric.type, metric.documentation) == (METRICS[name].kind, METRICS[name].help)
        assert all(sample.value == 0 for sample in metric.samples)
        # Nobody has said how anything is: there is no hub that is down.
        assert bool(metric.samples) == (not METRICS[name].labels and metric.type != "gauge")


def test_counters_and_gauges_carry_their_labels() -> None:
    found = families(
        ("edge_requests_total", ("v1", "basic", "200"), [5]),
        ("edge_requests_total", ("v1", "basic", "429"), [7]),
        ("edge_connections", ("client",), [3]),
        ("edge_worker_restarts_total", (), [2]),
    )
    assert value(found["edge_requests_total"], route="v1", tier="basic", code="429") == 7
    assert value(found["edge_connections"], side="client") == 3
    assert value(found["edge_worker_restarts_total"]) == 2


def test_a_histogram_is_cumulative_in_seconds() -> None:
    words = [0] * (len(LATENCY_BUCKETS) + 2)
    words[3], words[9], words[-2] = 4, 2, 1  # ≤ 1 ms, ≤ 80 ms, above 10 s
    words[-1] = 12_500_000_000
    samples = families(("edge_request_seconds", ("v1",), words))["edge_request_seconds"].samples
    buckets = {float(sample.labels["le"]): sample.value for sample in samples if sample.name.endswith("_bucket")}
    assert list(buckets) == [*LATENCY_BUCKETS, float("inf")]
    assert [buckets[bound] for bound in (0.0005, 0.001, 0.08, 10.0, float("inf"))] == [0, 4, 6, 6, 7]
    rest = {sample.name: sample.value for sample in samples if not sample.name.endswith("_bucket")}
    assert rest == {"edge_request_seconds_count": 7, "edge_request_seconds_sum": 12.5}


def test_undeclared_metric_is_left_out_of_the_exposition() -> None:
    assert "edge_of_tomorrow_total" not in families(("edge_of_tomorrow_total", (), [1]))


def test_a_histogram_of_another_shape_is_an_error() -> None:
    with pytest.raises(ValueError, match="zip"):
        render_metrics([("edge_overhead_seconds", (), [1, 2, 3])])


@pytest.mark.parametrize(
    ("accept", "is_openmetrics"),
    [
        ("", False),
        ("*/*", False),
        ("text/plain;version=x", False),
        ("application/openmetrics-text;q=0,text/plain", False),
        ("text/plain, application/openmetrics-text; version=1.0.0; q=0.0", False),
        ("application/openmetrics-textual", False),
        ("application/openmetrics-text;version=abc", True),
        ("application/openmetrics-text;version=1.0.0;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1", True),
        ("text/plain;q=0, Application/OpenMetrics-Text", True),
    ],
)
def test_openmetrics_is_served_on_request_and_any_accept_field_is_valid(accept: str, is_openmetrics: bool) -> None:
    exemplars = {"v1": {0: Exemplar("ab", 0.00005, 1.0)}}
    text, content_type = render_metrics([("edge_request_seconds", ("v1",), [1] * 19)], exemplars, accept)
    assert content_type.startswith("application/openmetrics-text") is is_openmetrics
    assert text.endswith(b"# EOF\n") is (b"trace_id" in text) is is_openmetrics
    assert render_metrics([], {}, accept)[1].startswith("text/plain"), "without exemplars it is what it was"
