"""Readers of bodies: a JSON text, or a stream of server-sent events whose data are such texts.

Both are fed the body in any pieces, as it passes, and keep no more of it than `JsonText` does. Server-sent events are
read by https://html.spec.whatwg.org/multipage/server-sent-events.html: a line ends with CR, LF or both, data of several
lines are joined. The last event may lack its empty line: the SDKs of models' makers also read it then.
"""

import re
from collections.abc import Callable
from typing import Final, Protocol

from edgeproxy.edge.body_usage.answer_text import AnswerText
from edgeproxy.edge.body_usage.dialects import OUTPUT
from edgeproxy.edge.body_usage.json_fields import JsonFields, Value
from edgeproxy.edge.body_usage.json_text import ODD_USAGE, JsonText

BOM: Final = b"\xef\xbb\xbf"
EVENT_ENDS: Final = (b"\n\n", b"\n\r\n")
DATA: Final = b"data"
FIELD_BYTES_MAX: Final = len(b"data: ")
"""Bytes of a line that tell whether it has data, and the position of the data."""
LINE: Final = re.compile(rb"([^\r\n]*+)(\r\n|\r|\n)?")
NEUTRAL: Final = re.compile(
    rb'"type"\s*:\s*"(?:ping|error|message_start|response\.(?:created|queued|in_progress|failed))"|"error"\s*:\s*[{"]'
)
"""Events without generated content."""
NEUTRAL_BYTES_MAX: Final = 200
"""Bytes of an event that tell its type."""
DONE: Final = b"[DONE]"
END_BYTES: Final = len(b"data: [DONE]\r\n\r\n")
"""Bytes of the end of a stream at most, which has nothing else."""
EVENT_BEGINS: Final = (b"data:", b"event:", b"id:", b"retry:", b":")
BLANKS: Final = b" \t\r\n"
RECORD_SEPARATOR: Final = b"\x1e"
"""The byte before each text of a sequence (RFC 7464)."""
LINES_MAX: Final = 4096
"""Lines that are read of a body that says it is one JSON text, from its end."""
EVENTS_WITHOUT_MODEL_MAX: Final = 16
"""Events at the beginning of a stream that are read for the model; few streams name it later, and then with usage."""


class StatementReader(Protocol):
    """Reads the values that a body states."""

    values: dict[str, Value]

    def feed(self, data: bytes) -> None:
        """Read the next piece of the body."""

    def finish(self) -> None:
        """Read the kept parts: the body has ended."""

    @property
    def is_readable(self) -> bool:
        """True if the body so far can be read."""

    @property
    def has_content(self) -> bool:
        """True if events have come that a model may have generated."""

    @property
    def is_marked(self) -> bool:
        """True if something like usage has come, in whatever shape: in a body, or in its last event or line."""


class JsonReader:
    """Reads the values that a JSON body states."""

    has_content = False

    __slots__ = ("_answer_text", "_fields", "_text", "is_readable", "values")

    def __init__(self, fields: JsonFields, answer_text: AnswerText | None = None) -> None:
        """`answer_text` measures the text that is read, for an estimate."""
        self._fields, self._text, self._answer_text = fields, JsonText(), answer_text
        self.values: dict[str, Value] = {}
        """The found values, by name; complete once the body has ended."""
        self.is_readable = True
        """True if the body so far is JSON that can be read."""

    def feed(self, data: bytes) -> None:
        """Read the next piece of the body."""
        self._text.add(data)

    def finish(self) -> None:
        """Read the kept parts: the body has ended."""
        for text in self._text.list_texts():
            self.is_readable = read_json(self._fields, text.removeprefix(BOM), self.values)
            # An output of zero beside text is a lost number, so the text is measured then, too.
            is_stated = any(map(is_positive, self.values.values())) and self.values.get(OUTPUT) != 0
            if self._answer_text is not None and not is_stated:
                self._answer_text.add(text)

    @property
    def is_marked(self) -> bool:
        """True if something like usage has come."""
        return self._text.has(ODD_USAGE)

    @property
    def is_long(self) -> bool:
        """True if only the beginning and the end of the body were read."""
        return self._text.is_long


def is_positive(value: Value) -> bool:
    """Return whether a value is a number above zero."""
    return isinstance(value, int) and value > 0


def read_json(fields: JsonFields, text: bytes | bytearray, values: dict[str, Value]) -> bool:
    """Read the values of a text, or of its last lines if each is a text of its own; return whether it is either."""
    if fields.read(text, values):
        return True
    lines = text.strip(BLANKS).rsplit(b"\n", LINES_MAX)
    results = [fields.read(line, values) for line in lines if line.strip(BLANKS)] if len(lines) > 1 else []
    return any(results)


class EventStreamReader:
    """Reads the values that the events of a stream state; if several state a value the last one counts.

    In most pieces it looks only for `markers`: an event without any of them states none of the needed values. Events
    are read from the first on until one names the `model`, so that it is known even if the stream breaks off.
    """

    __slots__ = (
        "_answer_text",
        "_content_events",
        "_ended_with_cr",
        "_event",
        "_fields",
        "_is_between",
        "_is_first_line",
        "_last",
        "_line",
        "_marker",
        "_model",
        "_other_markers",
        "_unnamed",
        "_value",
        "values",
    )

    def __init__(
        self, fields: JsonFields, markers: tuple[bytes, ...], model: str, answer_text: AnswerText | None = None
    ) -> None:
        """`model`: the name that the model has among the values. `answer_text`: see JsonReader."""
        self._fields, self._model, self._answer_text = fields, model, answer_text
        # One at least is looked for in every piece, without a loop.
        self._marker, self._other_markers = markers[0], markers[1:]
        self.values: dict[str, Value] = {}
        """The values found so far, by name."""
        self._is_between = False
        """True if no part of the next event has come, and pieces are read for their markers alone."""
        self._is_first_line, self._ended_with_cr = True, False
        self._line = b""
        """The beginning of a line, while it is unknown whether it has data."""
        self._value: bool | None = None
        """True if the line is data, False if it is something else; None at the beginning of a line."""
        self._event: JsonText | None = None
        """The data of the event under way, if it has any."""
        self._unnamed = EVENTS_WITHOUT_MODEL_MAX
        """Events that are still to be read for the model."""
        self._last: bytes | bytearray = b""
        """The last event, or piece of whole events, that is more than the end of the stream."""
        self._content_events = 0
        """Events that may have generated content; skipped events count once a piece."""

    def feed(self, data: bytes) -> None:
        """Read the next piece of the body."""
        # Whole events of text, without usage: a search in C for each marker, and no line is read.
        if self._is_between and self._marker not in data and data.endswith(EVENT_ENDS):
            for marker in self._other_markers:
                if marker in data:
                    break
            else:
                self._content_events += 1
                if len(data) > END_BYTES:
                    self._last = data
                if self._answer_text is not None:
                    self._answer_text.add(data)
                return
        if self._is_between:
            data = self._skip_events(data)
        if data:
            self._read_lines(data)

    def _skip_events(self, data: bytes) -> bytes:
        """Return `data` from its first event on that has a marker, or is incomplete; two line feeds always end one."""
        at = len(data)
        for marker in (self._marker, *self._other_markers):
            begin = data.find(marker, 0, at)
            if begin >= 0:
                at = begin
        # The end of the last event before the marker: the event with the marker is read from its beginning.
        end = data.rfind(b"\n\n", 0, at)
        if end < 0:
            return data
        self._content_events += 1
        if self._answer_text is not None:
            self._answer_text.add(data[: end + 2])
        return data[end + 2 :]

    def finish(self) -> None:
        """Read the last event, which may lack its empty line. One that is cut off is not JSON, and states nothing."""
        self._end_event()

    @property
    def is_marked(self) -> bool:
        """True if the last event has something like usage."""
        return ODD_USAGE.search(self._last) is not None

    @property
    def has_content(self) -> bool:
        """True if a model may have generated anything: the first event of a chat has none of its text."""
        return self._content_events > 1

    @property
    def is_readable(self) -> bool:
        """Always true: events that cannot be read are skipped."""
        return True

    def _read_lines(self, data: bytes) -> None:
        # CR LF may be split between two pieces, and is one end of a line.
        position = 1 if self._ended_with_cr and data.startswith(b"\n") else 0
        while position < len(data):
            match = LINE.match(data, position)
            assert match is not None
            position = match.end()
            self._read_part(match[1], is_ended=match[2] is not None)
        self._ended_with_cr = data.endswith(b"\r")
        is_within = self._value is not None or bool(self._line) or self._event is not None
        self._is_between = not (is_within or self._ended_with_cr or self._unnamed)

    def _read_part(self, part: bytes, *, is_ended: bool) -> None:
        """Read a part of a line; `is_ended`: its last one."""
        if self._value is None:
            part = self._line + part
            # The byte order mark may be split between pieces, too.
            if self._is_first_line and not is_ended and BOM.startswith(part):
                self._line = part
                return
            if self._is_first_line:
                self._is_first_line, part = False, part.removeprefix(BOM)
            if not is_ended and len(part) < FIELD_BYTES_MAX:
                self._line = part
                return
            self._line = b""
            if not part:
                self._end_event()
                return
            self._value = part.startswith(b"data:") or part == DATA
            if self._value:
                # Exactly one space is no part of the value (WHATWG HTML section 9.2.6).
                part = part[len(DATA) + 1 :].removeprefix(b" ")
                if self._event is None:
                    self._event = JsonText()
                else:
                    self._event.add(b"\n")
        if self._value:
            assert self._event is not None
            self._event.add(part)
        if is_ended:
            self._value = None

    def _end_event(self) -> None:
        event, self._event = self._event, None
        if event is None:
            return
        self._content_events += 1
        for text in event.list_texts():
            # Counted above like any event, and taken back here.
            if text == DONE or NEUTRAL.search(text, 0, NEUTRAL_BYTES_MAX):
                self._content_events -= 1
            if len(text) > END_BYTES:
                self._last = text
            if self._answer_text is not None:
                self._answer_text.add(text)
            if self._unnamed or self._marker in text or any(marker in text for marker in self._other_markers):
                self._fields.read(text, self.values)
        if self._unnamed:
            self._unnamed = 0 if self._model in self.values else self._unnamed - 1


class LinesReader:
    """Reads the values of JSON texts, one a line; if several state a value the last one counts.

    With `on_line` each line is a statement of its own, and is passed on.
    """

    __slots__ = (
        "_answer_text",
        "_content_lines",
        "_fields",
        "_last",
        "_line",
        "_markers",
        "_model",
        "_on_line",
        "_unnamed",
        "values",
    )

    is_readable = True

    def __init__(
        self,
        fields: JsonFields,
        markers: tuple[bytes, ...],
        model: str,
        on_line: Callable[[dict[str, Value]], None] | None = None,
        answer_text: AnswerText | None = None,
    ) -> None:
        self._answer_text = answer_text
        self._fields, self._markers, self._model, self._on_line = fields, markers, model, on_line
        self.values: dict[str, Value] = {}
        self._line: JsonText | None = None
        """The line under way."""
        self._unnamed = EVENTS_WITHOUT_MODEL_MAX
        self._content_lines = 0
        self._last: bytes | bytearray = b""
        """The last line, or piece of whole lines."""

    def feed(self, data: bytes) -> None:
        """Read the next piece of the body."""
        if self._line is None and not self._unnamed and data.endswith(b"\n"):
            for marker in self._markers:
                if marker in data:
                    break
            else:
                self._content_lines += 1
                self._last = data
                if self._answer_text is not None:
                    self._answer_text.add(data)
                return
        # A string in JSON has no raw line feed (RFC 8259 section 7), so this splits none.
        *whole, rest = data.split(b"\n")
        for part in whole:
            self._add(part)
            self._end_line()
        if rest:
            self._add(rest)

    def finish(self) -> None:
        """Read the last line, which may lack its end."""
        self._end_line()

    @property
    def has_content(self) -> bool:
        """True if a model may have generated anything."""
        return self._content_lines > 1

    @property
    def is_marked(self) -> bool:
        """True if the last line has something like usage."""
        return ODD_USAGE.search(self._last) is not None

    def _add(self, part: bytes) -> None:
        if self._line is None:
            self._line = JsonText()
        self._line.add(part)

    def _end_line(self) -> None:
        line, self._line = self._line, None
        if line is None or not len(line):
            return
        for text in line.list_texts():
            if NEUTRAL.search(text, 0, NEUTRAL_BYTES_MAX) is None:
                self._content_lines += 1
            if self._answer_text is not None:
                self._answer_text.add(text)
            self._last = text
            if self._unnamed or any(marker in text for marker in self._markers):
                values = self.values if self._on_line is None else {}
                self._fields.read(text.strip(RECORD_SEPARATOR + BLANKS).removeprefix(BOM), values)
                if self._on_line is not None:
                    self._on_line(values)
                    return
        if self._unnamed:
            self._unnamed = 0 if self._model in self.values else self._unnamed - 1


class IgnoringReader:
    """Ignores a body that is not a text of any known form, for example speech."""

    has_content = is_marked = is_readable = False

    def __init__(self) -> None:
        self.values: dict[str, Value] = {}

    def feed(self, data: bytes) -> None:
        """Ignore the next piece of the body."""

    def finish(self) -> None:
        """Ignore the end of the body."""


class BodyReader:
    """Reads a body whose beginning decides how it is read: events that are declared as JSON or text, or JSON that is
    declared as events.
    """

    __slots__ = ("_create_inner", "_lead", "inner")

    def __init__(self, create_inner: Callable[[bytes, bool], StatementReader | None]) -> None:
        """`create_inner` creates the reader.

        Its arguments are the first bytes of a body that are not blanks, and whether these are all. It returns None if
        it needs more of them.
        """
        self._create_inner = create_inner
        self._lead = b""
        self.inner: StatementReader | None = None
        """The reader, once it is chosen."""

    def feed(self, data: bytes) -> None:
        """Read the next piece of the body."""
        if self.inner is None:
            self._choose(self._lead + data, is_all=False)
        else:
            self.inner.feed(data)

    def _choose(self, lead: bytes, *, is_all: bool) -> None:
        first = lead.removeprefix(BOM).lstrip(BLANKS)
        if first and (is_all or not BOM.startswith(first)):
            self.inner = self._create_inner(first, is_all)
        if self.inner is None:
            self._lead = lead.lstrip(BLANKS)
        else:
            self._lead = b""
            self.inner.feed(lead)

    def finish(self) -> None:
        """Read the kept parts: the body has ended."""
        if self.inner is None:
            self._choose(self._lead, is_all=True)
        if self.inner is not None:
            self.inner.finish()

    @property
    def values(self) -> dict[str, Value]:
        """The values that were found so far."""
        return {} if self.inner is None else self.inner.values

    @property
    def is_readable(self) -> bool:
        """True if the body so far can be read."""
        return self.inner is not None and self.inner.is_readable

    @property
    def is_text(self) -> bool:
        """True if the body is, or may be, of a form that is read."""
        return not isinstance(self.inner, IgnoringReader)

    @property
    def has_content(self) -> bool:
        """True if a model may have generated anything."""
        return self.inner is not None and self.inner.has_content

    @property
    def is_marked(self) -> bool:
        """True if something like usage has come."""
        return self.inner is not None and self.inner.is_marked

    @property
    def is_long(self) -> bool:
        """True if the body is one JSON text, and only its beginning and its end were read."""
        return isinstance(self.inner, JsonReader) and self.inner.is_long
