"""The metrics in Prometheus' text format: every family of `metrics.METRICS`, even without any count yet.

If there are exemplars and the client accepts OpenMetrics, the output is OpenMetrics, because the older format has none.

A counter begins at 0. A gauge without a value has no sample: an edge without a hub has no `edge_hub_up`.

This is the only module that imports prometheus-client.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar as PlainExemplar
from prometheus_client.samples import Sample
from prometheus_client.utils import floatToGoString

from edgeproxy.base.latency_buckets import LATENCY_BUCKETS
from edgeproxy.edge.metrics import METRICS, Series, Words
from edgeproxy.edge.supervisor.exemplars import NO_EXEMPLARS, Exemplar

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
OPENMETRICS = re.compile(
    r"""(?ix) (?:^|,) [ \t]* application/openmetrics-text [ \t]* (?= ,|;|$)
    (?! [^,]* ; [ \t]* q=0 (?:\.0{0,3})? [ \t]* (?: ,|;|$ ) )"""
)
"""The type in an Accept field, unless q=0 excludes it. The library's own parser fails at invalid versions."""
REQUEST_SECONDS = "edge_request_seconds"
ExemplarsByRoute = Mapping[str, Mapping[int, Exemplar]]
BOUNDS = (*map(floatToGoString, LATENCY_BUCKETS), "+Inf")


def render_metrics(
    series: Iterable[Series], exemplars: ExemplarsByRoute = NO_EXEMPLARS, accept: str = ""
) -> tuple[bytes, str]:
    """Return the text of `GET /metrics` and its type, for a request with this Accept.

    Series whose name is not in METRICS are left out.
    """
    families: dict[str, dict[tuple[str, ...], Words]] = {name: {} for name in METRICS}
    for name, labels, words in series:
        if name in families:
            families[name][labels] = words
    registry = CollectorRegistry()
    registry.register(MetricsCollector(families, exemplars))
    if exemplars and OPENMETRICS.search(accept):
        text: bytes = openmetrics.generate_latest(registry)  # type: ignore[no-untyped-call]
        return text, openmetrics.CONTENT_TYPE_LATEST
    return generate_latest(registry), CONTENT_TYPE


class MetricsCollector(Collector):
    """A collector of the families of METRICS; the words of each series are given by name and label values."""

    def __init__(
        self, families: Mapping[str, Mapping[tuple[str, ...], Words]], exemplars: ExemplarsByRoute = NO_EXEMPLARS
    ) -> None:
        self._families, self._exemplars = families, exemplars

    def collect(self) -> Iterator[Metric]:
        """Yield every family. A counter without labels is zero before the first count."""
        for name, (kind, labels, text) in METRICS.items():
            begins_at_zero = not labels and kind != "gauge"
            zero: Mapping[tuple[str, ...], Words] = {(): [0] * (len(BOUNDS) + 1)} if begins_at_zero else {}
            rows = self._families[name] or zero
            family = FAMILIES[kind](name, text, labels, rows)
            if name == REQUEST_SECONDS and self._exemplars:
                family.samples = [add_exemplar(sample, self._exemplars) for sample in family.samples]
            yield family


def add_exemplar(sample: Sample, exemplars: ExemplarsByRoute) -> Sample:
    """Return the sample of a bucket of a route with its exemplar, if there is one."""
    bound = sample.labels.get("le")
    exemplar = None if bound is None else exemplars.get(sample.labels["route"], {}).get(BOUNDS.index(bound))
    if exemplar is None:
        return sample
    return sample._replace(exemplar=PlainExemplar({"trace_id": exemplar.trace_id}, exemplar.seconds, exemplar.at))


def build_counter(name: str, text: str, labels: Sequence[str], rows: Mapping[tuple[str, ...], Words]) -> Metric:
    """Build a counter family; `name` ends in `_total`."""
    family = CounterMetricFamily(name, text, labels=labels)
    for values, words in rows.items():
        family.add_metric(values, words[0])
    return family


def build_gauge(name: str, text: str, labels: Sequence[str], rows: Mapping[tuple[str, ...], Words]) -> Metric:
    """Build a gauge family."""
    family = GaugeMetricFamily(name, text, labels=labels)
    for values, words in rows.items():
        family.add_metric(values, words[0])
    return family


def build_histogram(name: str, text: str, labels: Sequence[str], rows: Mapping[tuple[str, ...], Words]) -> Metric:
    """Build a histogram family, with cumulative buckets in seconds."""
    family = HistogramMetricFamily(name, text, labels=labels)
    for values, words in rows.items():
        *counts, nanoseconds = words
        buckets = zip(BOUNDS, accumulate(counts), strict=True)
        family.add_metric(values, list(buckets), sum_value=nanoseconds / 1e9)
    return family


FAMILIES = {"counter": build_counter, "gauge": build_gauge, "histogram": build_histogram}
