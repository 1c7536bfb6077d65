"""Spans as OTLP messages (opentelemetry/proto/trace/v1/trace.proto), in the classes of opentelemetry-proto.

The classes are filled directly. The SDK of OpenTelemetry would first create its own objects, which cost more than a
whole request without spans. Concatenated bytes join repeated fields of protocol buffers. So recurring attributes are
encoded once and cached, and spans travel encoded from a worker to the exporter.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, SpanFlags, Status

import edgeproxy

if TYPE_CHECKING:
    from google.protobuf.internal.containers import RepeatedCompositeFieldContainer
    from opentelemetry.proto.common.v1.common_pb2 import KeyValue

AttributeValue = str | int | bool
Attributes = Mapping[str, AttributeValue]

INTERNAL, SERVER, CLIENT = Span.SPAN_KIND_INTERNAL, Span.SPAN_KIND_SERVER, Span.SPAN_KIND_CLIENT
SAMPLED: Final = 0x01
"""The sampled flag of W3C Trace Context, which each recorded span has."""
HAS_IS_REMOTE: Final = SpanFlags.SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK
IS_REMOTE: Final = SpanFlags.SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK
SCHEMA_URL: Final = "https://opentelemetry.io/schemas/1.44.0"
"""The version of the semantic conventions that define the attribute names."""

RECURRING_MAX: Final = 1024
"""The most encoded sets of attributes that are cached."""


class SpanBatch:
    """The spans of one trace that end together. Ids are hex digits, times Unix nanoseconds."""

    __slots__ = ("_message", "_trace_id", "count")

    def __init__(self, trace_id: bytes) -> None:
        self._trace_id = bytes.fromhex(trace_id.decode())
        self._message = ScopeSpans()
        self.count = 0

    def add(self, span_id: bytes, parent_id: bytes, name: str, kind: int, times: tuple[int, int]) -> Span:
        """Add a span from its start to its end; `parent_id` is empty for a root."""
        self.count += 1
        span: Span = self._message.spans.add(
            trace_id=self._trace_id,
            span_id=bytes.fromhex(span_id.decode()),
            parent_span_id=bytes.fromhex(parent_id.decode()),
            name=replace_surrogates(name),
            kind=kind,
            start_time_unix_nano=times[0],
            end_time_unix_nano=times[1],
            flags=SAMPLED | HAS_IS_REMOTE,
        )
        return span

    def encode(self) -> bytes:
        """Encode the spans, as bytes that the spans of other batches may follow."""
        encoded: bytes = self._message.SerializeToString()
        return encoded


def set_attributes(into: "RepeatedCompositeFieldContainer[KeyValue]", attributes: Attributes) -> None:
    """Add attributes to a message."""
    add = into.add
    for name, value in attributes.items():
        member = add(key=name).value
        if isinstance(value, str):
            member.string_value = replace_surrogates(value)
        elif isinstance(value, bool):
            member.bool_value = value
        else:
            member.int_value = value


def encode_attributes(attributes: Attributes) -> bytes:
    """Encode attributes of a span, for its `MergeFromString`."""
    span = Span()
    set_attributes(span.attributes, attributes)
    encoded: bytes = span.SerializeToString()
    return encoded


@lru_cache(maxsize=RECURRING_MAX)
def encode_recurring(attributes: tuple[tuple[str, AttributeValue], ...]) -> bytes:
    """Encode attributes, names and values, that many spans have."""
    return encode_attributes(dict(attributes))


def set_failure(span: Span, message: str) -> None:
    """Mark a span as failed."""
    span.status.code = Status.STATUS_CODE_ERROR
    span.status.message = replace_surrogates(message)


def replace_surrogates(text: str) -> str:
    """Return a text that UTF-8 can encode, as fields of protocol buffers require."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def create_request(resource: Attributes, spans: bytes) -> ExportTraceServiceRequest:
    """Create a request with encoded spans, all of one resource."""
    request = ExportTraceServiceRequest()
    resource_spans: ResourceSpans = request.resource_spans.add(schema_url=SCHEMA_URL)
    set_attributes(resource_spans.resource.attributes, resource)
    scope_spans = resource_spans.scope_spans.add(schema_url=SCHEMA_URL)
    scope_spans.scope.name, scope_spans.scope.version = "edgeproxy", edgeproxy.__version__
    scope_spans.MergeFromString(spans)
    return request
