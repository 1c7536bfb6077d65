"""The usage of streams of OpenAI's API, which they state only on request: in `stream_options` of a request.

The requested usage comes in an event of its own, which can be taken out of the stream again.
"""

import json
import re
from collections.abc import Iterable
from typing import Final, cast

import msgspec

from edgeproxy.edge.body_usage.readers import EVENT_ENDS

REQUEST_BYTES_MAX: Final = 128 << 10
"""Usage is requested only in a request of at most this many bytes: the request is kept until it is whole."""
EVENT_BYTES_MAX: Final = 16 << 10
"""Bytes that an event of usage may have. A longer event passes before it is whole."""

Members = dict[str, msgspec.Raw]
"""The members of an object, each in its written form."""

MEMBERS: Final = msgspec.json.Decoder(Members)
STREAM: Final = "stream"
STREAM_KEY: Final = b'"stream"'
STREAM_OPTIONS: Final = "stream_options"
STREAM_OPTIONS_KEY: Final = b'"stream_options"'
INCLUDE_USAGE: Final = "include_usage"
INCLUDE_USAGE_KEY: Final = b'"include_usage"'
NAMES: Final = (STREAM, STREAM_OPTIONS)
NO_STREAM: Final = (b"", b"false", b"null")
FALSE_WORDS: Final = ("", "0", "false", "f", "no", "n", "off")
"""Texts that pydantic takes for false."""
TRUE: Final = msgspec.Raw(b"true")
OPTIONS: Final = b',"stream_options":{"include_usage":true}}'
MARKER: Final = b'_tokens"'
"""Bytes that every event with usage has."""
EVENT_END: Final = re.compile(rb"(?>\r\n|\r|\n){2}")
COMMENTS: Final = re.compile(rb"(?::[^\r\n]*\r?\n)+")
LINE_END: Final = re.compile(rb"\r\n|\r|\n")


class Chunk(msgspec.Struct):
    """A chunk of a stream that states usage."""

    choices: list[msgspec.Raw]
    usage: Members


CHUNKS: Final = msgspec.json.Decoder(Chunk)


def ask_for_usage(body: bytes) -> bytes | None:
    """Return a request that asks for a stream with its usage; None if it already does, or asks for no stream, or is not
    a request that can be read.

    Without any `stream_options` the rest stays unchanged, byte for byte. A body that services read more kindly than the
    standard does, for example with `"stream": 1` or a byte order mark, is written anew.
    """
    try:
        members = MEMBERS.decode(body)
        if _is_repeated(STREAM_KEY, body, members) or any(_is_variant(key, name) for key in members for name in NAMES):
            return _rewrite_odd(body)
        stream = bytes(members.get(STREAM, b""))
        if stream != b"true":
            return _rewrite_odd(body) if stream not in NO_STREAM else None
        if STREAM_OPTIONS not in members:
            return body.rstrip()[:-1] + OPTIONS
        written = bytes(members[STREAM_OPTIONS])
        options = _read_options(written)
        if any(_is_variant(key, INCLUDE_USAGE) for key in options):
            return _rewrite_odd(body)
        is_repeated = _is_repeated(STREAM_OPTIONS_KEY, body, members)
        is_repeated = is_repeated or _is_repeated(INCLUDE_USAGE_KEY, written, options)
        if bytes(options.get(INCLUDE_USAGE, b"")) == b"true" and not is_repeated:
            return None
        options[INCLUDE_USAGE] = TRUE
        members[STREAM_OPTIONS] = msgspec.Raw(msgspec.json.encode(options))
        return msgspec.json.encode(members)
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        return _rewrite_odd(body)


def is_readable(body: bytes) -> bool:
    """Return whether strict or kind readers can read a body as JSON."""
    try:
        MEMBERS.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        return _read_kindly(body) is not None
    return True


def _is_repeated(key: bytes, text: bytes, members: Members) -> bool:
    """Return whether an object has a key, written in its quotes, more than once. Its values may have the key too."""
    count = text.count(key)
    return count > 1 and count - sum([bytes(value).count(key) for value in members.values()]) > 1


def _is_variant(key: str, name: str) -> bool:
    """Return whether a key is a name in another case, as services in Go take it: U+017F is an `s` there."""
    return key != name and key.casefold() == name


def _read_kindly(body: bytes) -> list[tuple[str, object]] | None:
    """Return the members of the first object of a body, as kind readers take it; None if it has no object.

    Python's `json` and pydantic read NaN, lone surrogates, a byte order mark and UTF-16. Decoders in Go ignore
    everything behind the object.
    """
    members: list[tuple[str, object]] = []

    def read_object(pairs: list[tuple[str, object]]) -> dict[str, object]:
        members[:] = pairs  # The outermost object ends last.
        return dict(pairs)

    try:
        text = body.decode(json.detect_encoding(body), "surrogatepass").lstrip("\ufeff \t\r\n")
        value, _ = json.JSONDecoder(object_pairs_hook=read_object).raw_decode(text)
    except (ValueError, RecursionError):
        return None
    return members if isinstance(value, dict) else None


def _rewrite_odd(body: bytes) -> bytes | None:
    """Return a body that asks for a stream with its usage; None if it is not a stream, or cannot be read.

    Then `stream` is there once, and true or false for every service.
    """
    read = _read_kindly(body)
    if read is None:
        return None
    streams = [value for key, value in read if key.casefold() == STREAM]
    if all(stream is False or stream is None for stream in streams):
        return None
    options = [value for key, value in read if key.casefold() == STREAM_OPTIONS and value is not None]
    if not all(isinstance(option, dict) for option in options):
        return None  # No service takes that.
    is_stream = any(_is_true(stream) for stream in streams)
    merged = {key: value for option in options for key, value in cast("dict[str, object]", option).items()}
    others = {key: value for key, value in merged.items() if key.casefold() != INCLUDE_USAGE}
    members = {key: value for key, value in read if key.casefold() not in NAMES}
    names = {*members, STREAM, *([STREAM_OPTIONS] if options else [])}
    is_plain = len(read) == len(names) == len(names.intersection(dict(read))) and streams[0] is is_stream
    states_usage = len(merged) - len(others) == 1 and merged.get(INCLUDE_USAGE) is True
    if is_plain and (states_usage or not is_stream):
        return None  # For example, a body with NaN.
    members[STREAM] = is_stream
    if is_stream:
        members[STREAM_OPTIONS] = {**others, INCLUDE_USAGE: True}
    elif options:
        members[STREAM_OPTIONS] = merged
    return json.dumps(members, separators=(",", ":")).encode()


def _is_true(stream: object) -> bool:
    """Return whether pydantic, or Python itself, takes a value for true."""
    return stream.strip().lower() not in FALSE_WORDS if isinstance(stream, str) else bool(stream)


def _read_options(written: bytes) -> Members:
    return {} if written == b"null" else MEMBERS.decode(written)


class UsageEventFilter:
    """Takes the events out of a stream that have usage and no choices.

    All others pass unchanged, each at once when it is whole.
    """

    __slots__ = ("_held", "_is_long", "_passes_line_feed")

    def __init__(self) -> None:
        self._held = b""
        """The received part of the event under way."""
        self._is_long = False
        """True if the event under way passes at once, in parts."""
        self._passes_line_feed: bool | None = None
        """The last event ended with CR: a line feed that follows passes if the event did. None if no event ended so."""

    def feed(self, parts: Iterable[bytes], *, last: bool = False) -> bytes:
        """Return the passing part of the next part of the stream; `last`: nothing follows."""
        passing = b"".join([self._feed(part) for part in parts])
        return passing + self.end() if last else passing

    def end(self) -> bytes:
        """Return the rest at the end of the stream: an event without an empty line behind it is incomplete."""
        held, self._held = self._held, b""
        return held

    def _feed(self, data: bytes) -> bytes:
        is_between = not self._held and not self._is_long and self._passes_line_feed is None
        if is_between and MARKER not in data and data.endswith(EVENT_ENDS):
            return data  # As most pieces are: whole events.
        passing, position = [], 0
        if self._passes_line_feed is not None and data:
            if self._passes_line_feed and data.startswith(b"\n"):
                passing.append(b"\n")
            data, self._passes_line_feed = data.removeprefix(b"\n"), None
        text = self._held + data
        # The held bytes have no end in them, but may have the beginning of one: three bytes of CR LF CR LF.
        for match in EVENT_END.finditer(text, max(0, len(self._held) - 3)):
            event, position = text[position : match.end()], match.end()
            passes = self._is_long or not is_usage_event(event)
            if passes:
                passing.append(event)
            if position == len(text) and event.endswith(b"\r"):
                self._passes_line_feed = passes
            self._is_long = False
        held = text[position:]
        if not self._is_long and (comments := COMMENTS.match(held)):
            passing.append(comments[0])  # They keep connections alive, and a client may wait for them.
            held = held[comments.end() :]
        self._is_long = self._is_long or len(held) > EVENT_BYTES_MAX
        # Two line ends may be in two pieces, so that the last of a long event is kept.
        tail = len(held) if not self._is_long else len(held) - len(held.rstrip(b"\r\n"))
        passing.append(held[: len(held) - tail])
        self._held = held[len(held) - tail :]
        return b"".join(passing)


def is_usage_event(event: bytes) -> bool:
    """Return whether an event has usage and no choices."""
    if MARKER not in event or len(event) > EVENT_BYTES_MAX:
        return False
    lines = [line for line in LINE_END.split(event) if line.startswith(b"data:")]
    try:
        return not CHUNKS.decode(b"\n".join([line[5:].removeprefix(b" ") for line in lines])).choices
    except (msgspec.DecodeError, RecursionError):
        return False
