"""Readers of bodies: a JSON text, or a stream of server-sent events whose data are such texts.

Both are fed the body in any pieces, as it passes, and keep no more of it than `JsonText` does. Server-sent events are
read as https://html.spec.whatwg.org/multipage/server-sent-events.html says: a line ends with CR, LF or both, data of
several lines are joined, and what is not ended by an empty line is no event.
"""

import re
from typing import Final

from edgeproxy.edge.body_usage.json_fields import JsonFields
from edgeproxy.edge.body_usage.json_text import JsonText

BOM: Final = b"\xef\xbb\xbf"
EVENT_ENDS: Final = (b"\n\n", b"\n\r\n")
DATA: Final = b"data"
FIELD_BYTES_MAX: Final = len(b"data: ")
"""Bytes of a line by which it is known whether it has data, and where they begin."""
LINE: Final = re.compile(rb"([^\r\n]*+)(\r\n|\r|\n)?")
EVENTS_WITHOUT_MODEL_MAX: Final = 16
"""Events at the beginning of a stream that are read for the model; few streams name it later, and then with usage."""


class JsonReader:
    """Reads the values that a JSON body states."""

    __slots__ = ("_fields", "_text", "is_readable", "values")

    def __init__(self, fields: JsonFields) -> None:
        self._fields, self._text = fields, JsonText()
        self.values: dict[str, bytes] = {}
        """What was found, by name, as it is written; there once the body has ended."""
        self.is_readable = True
        """Whether what has come is JSON that can be read."""

    def feed(self, data: bytes) -> None:
        """Read the next piece of the body."""
        self._text.add(data)

    def finish(self) -> None:
        """Read what was kept: the body has ended."""
        for text in self._text.list_texts():
            self.is_readable = self._fields.read(text.removeprefix(BOM), self.values)


class EventStreamReader:
    """Reads the values that the events of a stream state; of a value that several state the last one counts.

    Of most pieces it looks only for `markers`: an event without any of them states nothing that is looked for. Events
    are read from the first on until one names the `model`, so that it is known of streams that break off.
    """

    __slots__ = (
        "_ended_with_cr",
        "_event",
        "_fields",
        "_is_between",
        "_is_first_line",
        "_line",
        "_marker",
        "_model",
        "_other_markers",
        "_unnamed",
        "_value",
        "values",
    )

    def __init__(self, fields: JsonFields, markers: tuple[bytes, ...], model: str) -> None:
        """`model`: the name that the model has among the values."""
        self._fields, self._model = fields, model
        # One at least is asked of every piece, without a loop.
        self._marker, self._other_markers = markers[0], markers[1:]
        self.values: dict[str, bytes] = {}
        """What was found so far, by name, as it is written."""
        self._is_between = False
        """Whether nothing has come of the next event, and pieces are read for their markers alone."""
        self._is_first_line, self._ended_with_cr = True, False
        self._line = b""
        """The beginning of a line, as long as it is not known whether it has data."""
        self._value: bool | None = None
        """Whether what comes is data, or something else; None at the beginning of a line."""
        self._event: JsonText | None = None
        """The data of the event under way, if it has any."""
        self._unnamed = EVENTS_WITHOUT_MODEL_MAX
        """Events that are still to be read for the model."""

    def feed(self, data: bytes) -> None:
        """Read the next piece of the body."""
        if self._is_between and self._marker not in data and data.endswith(EVENT_ENDS):
            for marker in self._other_markers:
                if marker in data:
                    break
            else:
                return
        if self._is_between:
            data = self._skip_events(data)
        if data:
            self._read_lines(data)

    def _skip_events(self, data: bytes) -> bytes:
        """Return `data` from its first event on that has a marker, or is not whole; two line feeds always end one."""
        at = len(data)
        for marker in (self._marker, *self._other_markers):
            begin = data.find(marker, 0, at)
            if begin >= 0:
                at = begin
        end = data.rfind(b"\n\n", 0, at)
        return data if end < 0 else data[end + 2 :]

    def finish(self) -> None:
        """The body has ended. An event without an empty line behind it is none, so that nothing is left to be read."""

    @property
    def is_readable(self) -> bool:
        """Whether what has come can be read: events that cannot are passed over."""
        return True

    def _read_lines(self, data: bytes) -> None:
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
        for text in event.list_texts():
            if self._unnamed or self._marker in text or any(marker in text for marker in self._other_markers):
                self._fields.read(text, self.values)
        if self._unnamed:
            self._unnamed = 0 if self._model in self.values else self._unnamed - 1
