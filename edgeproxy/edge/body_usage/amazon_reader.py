"""The reader of Amazon's event streams, whose messages have JSON as their payload."""

import re
from base64 import b64decode
from typing import Final

from edgeproxy.edge.body_usage.answer_text import AnswerText
from edgeproxy.edge.body_usage.json_fields import JsonFields, Value
from edgeproxy.edge.body_usage.json_text import ODD_USAGE, JsonText

AMAZON_PRELUDE_BYTES: Final = 12
"""Bytes before the headers of a message: its length, the length of the headers, and a checksum."""
AMAZON_CHECKSUM_BYTES: Final = 4
AMAZON_MESSAGE_BYTES_MAX: Final = 24 << 20
"""The longest message of an event stream (AWS, event stream encoding: 24 MiB)."""
PAYLOAD: Final = re.compile(rb'\s*\{\s*"bytes"\s*:\s*"([A-Za-z0-9+/=]*)"')


class AmazonReader:
    """Reads the values of messages of Amazon's event streams: of JSON, or of the JSON in their `bytes`, in base64.

    A message is its length and the length of its headers, of four bytes each, a checksum, headers, payload and a
    checksum (AWS, event stream encoding). Checksums are not looked at.
    """

    __slots__ = (
        "_answer_text",
        "_fields",
        "_last",
        "_left",
        "_messages",
        "_payload",
        "_prelude",
        "_skip",
        "is_readable",
        "values",
    )

    def __init__(self, fields: JsonFields, answer_text: AnswerText | None = None) -> None:
        """`answer_text`: see JsonReader."""
        self._fields, self._answer_text = fields, answer_text
        self._last: bytes | bytearray = b""
        """The payload of the last message."""
        self.values: dict[str, Value] = {}
        self.is_readable = True
        self._prelude = b""
        self._skip = self._left = 0
        """Bytes of headers, and of the payload, that are still to come."""
        self._payload: JsonText | None = None
        self._messages = 0

    def feed(self, data: bytes) -> None:
        """Read the next piece of the body."""
        position = 0
        while position < len(data) and self.is_readable:
            if self._payload is None and not self._skip:
                part = data[position : position + AMAZON_PRELUDE_BYTES - len(self._prelude)]
                self._prelude += part
                position += len(part)
                if len(self._prelude) == AMAZON_PRELUDE_BYTES:
                    self._begin_message()
            elif self._left > AMAZON_CHECKSUM_BYTES and not self._skip:
                assert self._payload is not None
                part = data[position : position + self._left - AMAZON_CHECKSUM_BYTES]
                self._payload.add(part)
                position += len(part)
                self._left -= len(part)
                if self._left == AMAZON_CHECKSUM_BYTES:
                    self._end_message()
            else:
                size = min(len(data) - position, self._skip)
                position += size
                self._skip -= size

    def _begin_message(self) -> None:
        size, headers = int.from_bytes(self._prelude[:4], "big"), int.from_bytes(self._prelude[4:8], "big")
        self._prelude, self._skip = b"", headers
        self._left = size - headers - AMAZON_PRELUDE_BYTES
        self.is_readable = AMAZON_CHECKSUM_BYTES <= self._left <= AMAZON_MESSAGE_BYTES_MAX
        self._payload = JsonText()
        if self._left == AMAZON_CHECKSUM_BYTES:
            self._end_message()

    def _end_message(self) -> None:
        payload, self._payload = self._payload, None
        self._skip, self._left = self._skip + AMAZON_CHECKSUM_BYTES, 0
        assert payload is not None
        self._messages += 1
        for text in payload.list_texts():
            packed = PAYLOAD.match(text)
            payload_text: bytes | bytearray = text
            if packed is not None:
                try:
                    payload_text = b64decode(packed[1])
                except ValueError:
                    continue
            self._last = payload_text
            self._fields.read(payload_text, self.values)
            if self._answer_text is not None:
                self._answer_text.add(payload_text)

    def finish(self) -> None:
        """End the body: a message that is cut off states nothing."""

    @property
    def is_marked(self) -> bool:
        """True if the last message has something like usage."""
        return ODD_USAGE.search(self._last) is not None

    @property
    def has_content(self) -> bool:
        """True if a model may have generated anything."""
        return self._messages > 1
