"""Spans that workers have recorded, on their way to the exporter, and the metrics of the export."""

from time import monotonic

from edgeproxy.config.tracing import Tracing
from edgeproxy.edge.messages import SpansEnded
from edgeproxy.edge.metrics import Series
from edgeproxy.edge.supervisor.exemplars import Exemplars
from edgeproxy.tracing.exporter import DROP_REASONS, SpanExporter

WORKER_FULL = "worker_full"
"""The reason of spans that a worker could not hand over in time."""


class Traces:
    """The traces of one supervisor's workers."""

    def __init__(self, settings: Tracing | None, region: str) -> None:
        self.exporter = SpanExporter(settings, {"edgeproxy.region": region})
        self.exemplars = Exemplars()

    def add(self, message: SpansEnded) -> None:
        """Add the spans that a worker has recorded."""
        if message.count:
            self.exporter.add(message.spans, message.count)
            self.exemplars.read(message.spans, monotonic())
        if message.dropped:
            self.exporter.dropped[WORKER_FULL] += message.dropped

    def series(self) -> list[Series]:
        """Return the metrics of the export."""
        exporter = self.exporter
        reasons = (WORKER_FULL, *DROP_REASONS)
        return [
            ("edge_trace_spans_exported_total", (), (exporter.exported,)),
            *(("edge_trace_spans_dropped_total", (reason,), (exporter.dropped[reason],)) for reason in reasons),
        ]
