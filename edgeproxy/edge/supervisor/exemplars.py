"""Exemplars of request latency: the last recorded request of each bucket.

The tracing system can find it (OpenMetrics, section Exemplars).
"""

from bisect import bisect_left
from collections.abc import Mapping
from typing import Final, NamedTuple

from edgeproxy.base.latency_buckets import LATENCY_BUCKETS

READ_SECONDS: Final = 1.0
"""Seconds between two readings of spans. Each reads the spans that a worker sends at once, which takes a millisecond or
more.
"""
ROUTE: Final = "edgeproxy.route"


class Exemplar(NamedTuple):
    """A recorded request."""

    trace_id: str
    seconds: float
    """Its duration."""
    at: float
    """The Unix second of its end."""


class Exemplars:
    """The exemplars of the requests of one edge."""

    def __init__(self) -> None:
        self.by_route: dict[str, dict[int, Exemplar]] = {}
        """By route, and by the index of the bucket."""
        self._read_at = float("-inf")

    def read(self, spans: bytes, now: float) -> None:
        """Read the exemplars of encoded spans, at `now` of the monotonic clock, unless some were read just before."""
        if now - self._read_at < READ_SECONDS:
            return
        self._read_at = now
        # Tracing needs packages of an optional extra. Without them there are no spans.
        from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans, Span

        for span in ScopeSpans.FromString(spans).spans:
            route = next(
                (attribute.value.string_value for attribute in span.attributes if attribute.key == ROUTE), None
            )
            if span.kind == Span.SPAN_KIND_SERVER and route is not None:
                seconds = (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9
                exemplar = Exemplar(span.trace_id.hex(), seconds, span.end_time_unix_nano / 1e9)
                self.by_route.setdefault(route, {})[bisect_left(LATENCY_BUCKETS, seconds)] = exemplar


NO_EXEMPLARS: Final[Mapping[str, Mapping[int, Exemplar]]] = {}
