"""The metrics of a probe. The one file of its room that knows prometheus-client."""

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, start_http_server, write_to_textfile

from edgeproxy.probe.steps import Step


class ProbeMetrics:
    """The metrics of a probe; `edge` is the label of the edge that it asks."""

    def __init__(self, edge: str) -> None:
        self._registry = registry = CollectorRegistry()
        self._edge = edge
        about = "1 while a step of the last round went as it should"
        self._ok = Gauge("edgeproxy_probe_ok", about, ("edge", "step"), registry=registry)
        self._seconds = Gauge(
            "edgeproxy_probe_seconds", "How long a step of it took", ("edge", "step"), registry=registry
        )
        self._finished = Gauge(
            "edgeproxy_probe_finished_seconds", "When it ended, in Unix seconds", ("edge",), registry=registry
        )
        self._rounds = Counter("edgeproxy_probe_rounds_total", "Rounds", ("edge", "result"), registry=registry)
        for result in ("ok", "failed"):
            self._rounds.labels(edge, result)

    def record_round(self, steps: Sequence[Step], finished_at: float) -> None:
        """Set the metrics of a round that ended at this Unix second; steps that were not made have none."""
        self._ok.clear()
        self._seconds.clear()
        for step in steps:
            self._ok.labels(self._edge, step.name).set(step.why is None)
            self._seconds.labels(self._edge, step.name).set(step.seconds)
        self._finished.labels(self._edge).set(finished_at)
        self._rounds.labels(self._edge, "failed" if any(step.why for step in steps) else "ok").inc()

    def write(self, file: str) -> None:
        """Write all metrics to a file, at once, for the textfile collector of node_exporter; raises OSError."""
        write_to_textfile(file, self._registry)

    def serve(self, host: str, port: int) -> None:
        """Serve the metrics as `GET /metrics`, from a thread that ends with the process; raises OSError."""
        start_http_server(port, host, self._registry)
