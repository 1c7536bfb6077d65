"""Metrics as Prometheus reads them."""

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from edgeproxy.edge.supervisor.exposition import Series, render_metrics


def families(*series: Series, text: str | None = None) -> dict[str, Metric]:
    """Parse `text`, or the rendered text of these series, as Prometheus does. Return the metrics by name."""
    read = text_string_to_metric_families(render_metrics(series)[0].decode() if text is None else text)
    return {f"{one.name}_total" if one.type == "counter" else one.name: one for one in read}


def value(metric: Metric, **labels: str) -> float:
    """The one sample with exactly these labels."""
    (found,) = [sample.value for sample in metric.samples if sample.labels == labels]
    return found
