"""Traces of a process with one event loop. The context of the work determines the parent of each span.

Without recording, the cost is one read of the context. Each span goes to the exporter when it ends, because work
that it has started may last longer.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from time import monotonic, time_ns
from typing import TYPE_CHECKING, Final

from edgeproxy.tracing.exporter import SpanExporter
from edgeproxy.tracing.sampling import ParentBudget

if TYPE_CHECKING:
    from edgeproxy.config.tracing import Tracing
    from edgeproxy.tracing.spans import Attributes

TRACEPARENT: Final = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-[0-9a-f]([0-9a-f])")
"""A traceparent of W3C Trace Context: the trace-id, the parent-id, and the digit with the sampled flag."""
DRAWN_BITS: Final = 64
"""The bits of a trace-id that decide about sampling, as in OpenTelemetry's TraceIdRatioBased."""


class OpenSpan:
    """A span that has not ended."""

    __slots__ = ("attributes", "failure", "recorder", "span_id", "trace_id")

    def __init__(self, recorder: "SpanRecorder", trace_id: str) -> None:
        self.recorder = recorder
        self.trace_id, self.span_id = trace_id, os.urandom(8).hex()
        self.attributes: dict[str, str | int | bool] = {}
        self.failure: str | None = None
        """The reason of a failure; "" for a failure without further details."""

    def set_status(self, status: int, *, fails_from: int = 400) -> None:
        """Set the status of an answer. A call fails from 400 on, a served request from 500 on."""
        self.attributes["http.response.status_code"] = status
        if status >= fails_from:
            self.failure, self.attributes["error.type"] = "", str(status)


_SPAN: ContextVar[OpenSpan | None] = ContextVar("the span of this context", default=None)
_RECORDER: ContextVar["SpanRecorder | None"] = ContextVar("the recorder of this context", default=None)


class SpanRecorder:
    """Records traces for the receiver of `settings`, if any."""

    def __init__(self, settings: "Tracing | None") -> None:
        self.exporter = SpanExporter(settings, {})
        self._settings = settings
        self._budget = None if settings is None else ParentBudget(settings.parent_rate)

    def begin(self) -> None:
        """Record the work in this context, and in tasks that start in it, from now on."""
        self.exporter.begin()
        _RECORDER.set(self)

    async def follow(self, settings: "Tracing | None") -> None:
        """Apply the settings of another configuration."""
        if settings != self._settings:
            self._settings = settings
            self._budget = None if settings is None else ParentBudget(settings.parent_rate)
            await self.exporter.follow(settings)

    async def end(self) -> None:
        """Export waiting spans, within a few seconds."""
        await self.exporter.end()

    def draw(self, traceparent: str) -> tuple[str, str] | None:
        """Return the trace-id and parent-id of a recorded trace; None if it is not recorded."""
        settings, budget = self._settings, self._budget
        if settings is None or budget is None:
            return None
        match = TRACEPARENT.fullmatch(traceparent)
        trace_id, parent_id = (os.urandom(16).hex(), "") if match is None else (match[1], match[2])
        is_drawn = int(trace_id, 16) % (1 << DRAWN_BITS) < settings.sample * (1 << DRAWN_BITS)
        if match is not None and settings.parent == "respect":
            is_recorded = int(match[3], 16) & 1 == 1
            is_drawn = is_recorded and (budget.take(monotonic()) or is_drawn)
        return (trace_id, parent_id) if is_drawn else None


@contextmanager
def trace(name: str, *, of_request: bool, traceparent: str = "") -> Iterator[OpenSpan | None]:
    """Record the work within as the first span of this process, for a request or a job, if the trace is sampled."""
    recorder = _RECORDER.get()
    drawn = None if recorder is None else recorder.draw(traceparent)
    if recorder is None or drawn is None:
        yield None
        return
    from edgeproxy.tracing.spans import INTERNAL, SERVER

    trace_id, parent_id = drawn
    with _record(recorder, name, SERVER if of_request else INTERNAL, trace_id, parent_id) as span:
        yield span


@contextmanager
def trace_call(name: str, attributes: "Attributes") -> Iterator[OpenSpan | None]:
    """Record a call of another server within the span of this context, if that is recorded."""
    parent = _SPAN.get()
    if parent is None:
        yield None
        return
    from edgeproxy.tracing.spans import CLIENT

    with _record(parent.recorder, name, CLIENT, parent.trace_id, parent.span_id) as span:
        span.attributes |= attributes
        yield span


@contextmanager
def _record(recorder: SpanRecorder, name: str, kind: int, trace_id: str, parent_id: str) -> Iterator[OpenSpan]:
    from edgeproxy.tracing.spans import IS_REMOTE, SERVER, SpanBatch, set_attributes, set_failure

    span, began = OpenSpan(recorder, trace_id), time_ns()
    token = _SPAN.set(span)
    try:
        yield span
    except BaseException as error:
        span.failure = ""
        span.attributes["error.type"] = type(error).__name__
        raise
    finally:
        _SPAN.reset(token)
        batch = SpanBatch(trace_id.encode())
        message = batch.add(span.span_id.encode(), parent_id.encode(), name, kind, (began, time_ns()))
        set_attributes(message.attributes, span.attributes)
        if span.failure is not None:
            set_failure(message, span.failure)
        if kind == SERVER and parent_id:
            message.flags |= IS_REMOTE
        recorder.exporter.add(batch.encode(), batch.count)
