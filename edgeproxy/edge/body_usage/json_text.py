"""A JSON text that comes in pieces, kept within bounds: all of it, or the beginning and the end of a long one.

A long text becomes two texts that are each JSON: `{"model": …, "choices": [` … `], "usage": {…}}` becomes `{"model":
…}` and `{"usage": {…}}`. Counting brackets from the text's own beginning or end tells whether a member is at the top or
within a quoted text, so that no text within the text passes for it.
"""

import re
from collections.abc import Iterator, Sized
from typing import Final, NamedTuple

WHOLE_BYTES_MAX: Final = 256 << 10
"""Up to this many bytes all of a text is kept; of a longer text, this many bytes of the beginning."""

END_BYTES_MAX: Final = 128 << 10
"""Bytes that are kept of the end."""

LEVELS: Final = 2
"""The deepest level of members that are read in a long text: `usage` is on the first level, `response.usage` on the
second.
"""

TOKENS_MAX: Final = 2_000
"""Tokens that are looked at from each end of a long text. A text of brackets alone has more of them in its kept parts,
and would hold up all other requests; then only the members nearest to its ends are read.
"""

STRING: Final = rb'"(?:[^"\\]++|\\.)*+("?)'
"""A string, with its closing quote if it has one."""

REVERSED_STRING: Final = rb'"[^"]*+(?:"\\(?:\\\\)*+(?!\\)[^"]*+)*+("?)'
"""The string pattern for a text that is read backwards: there an escaped quote stands before an odd number of
backslashes.
"""

TOKENS: Final = (re.compile(STRING + rb"|[][{},:]", re.DOTALL), re.compile(STRING + rb"|[][{}]", re.DOTALL))
REVERSED_TOKENS: Final = (re.compile(REVERSED_STRING + rb"|[][{},]"), re.compile(REVERSED_STRING + rb"|[][{}]"))
"""Strings and characters of structure; and the tokens that matter below LEVELS, as numbers come by the thousand
there.
"""

ODD_USAGE: Final = re.compile(
    rb'"(?:\w*[uU]sage\w*"\s*:\s*[\[{]\s*["{]|(?!max)\w*[tT]oken(?:s|_?[cC]ounts?)"\s*:\s*"?[1-9])'
)
"""An object of usage that is not empty, or a number of tokens, at whatever place."""

CLOSING: Final = {b"{": b"}", b"[": b"]"}
OPENING: Final = {b"}": b"{", b"]": b"["}


class Container(NamedTuple):
    """An object or a list that is open at some point of a text."""

    bracket: bytes
    key: bytes
    """Its key, in its quotes; the last key read before it, if it is a member of a list."""


class JsonText:
    """One text. `whole_bytes_max` and `end_bytes_max` bound the kept parts."""

    __slots__ = ("_begin", "_end", "_end_bytes_max", "_has_gap", "_whole_bytes_max")

    def __init__(self, whole_bytes_max: int = WHOLE_BYTES_MAX, end_bytes_max: int = END_BYTES_MAX) -> None:
        self._begin, self._end = bytearray(), bytearray()
        self._whole_bytes_max, self._end_bytes_max = whole_bytes_max, end_bytes_max
        self._has_gap = False

    def __len__(self) -> int:
        """Return the number of bytes that are kept."""
        return len(self._begin) + len(self._end)

    def add(self, piece: bytes) -> None:
        """Add the next piece of the text."""
        room = self._whole_bytes_max - len(self._begin)
        if len(piece) <= room:
            self._begin += piece
            return
        if room:
            self._begin += piece[:room]
            piece = piece[room:]
        end, most = self._end, self._end_bytes_max
        if len(end) + len(piece) > most:
            self._has_gap = True
            # The piece alone fills the kept end.
            if len(piece) >= most:
                end.clear()
                piece = piece[-most:]
            # Only every second length, because each cut copies the rest.
            elif len(end) >= 2 * most:
                del end[:-most]
        end += piece

    @property
    def is_long(self) -> bool:
        """True if only the beginning and the end are kept."""
        return self._has_gap

    @property
    def beginning(self) -> bytearray:
        """All of the text, or of a long one its beginning."""
        return self._begin if self._has_gap or not self._end else self._begin + self._end

    def has(self, pattern: re.Pattern[bytes]) -> bool:
        """Return whether a pattern is found in the kept parts."""
        return pattern.search(self._begin) is not None or pattern.search(self._end) is not None

    def list_texts(self) -> Iterator[bytes | bytearray]:
        """Yield the text, or the two that are left of a long one: the beginning, and the end if it can be read."""
        begin, end = self._begin, self._end
        if not self._has_gap:
            yield begin + end if end else begin
            return
        text, containers = close_beginning(begin)
        yield text
        rest = open_end(bytes(end[-self._end_bytes_max :]), containers)
        if rest is not None:
            yield rest


def close_beginning(begin: bytes | bytearray) -> tuple[bytes, list[Container]]:
    """Return the beginning of a text as a text of its own, and the containers that are open at its last byte.

    The returned text has everything up to the last whole member on one of the first LEVELS. If TOKENS_MAX ends it
    before, the returned containers are the ones open there.
    """
    containers: list[Container] = []
    string = key = b""
    stop, open_there = 0, b""
    for match in _list_tokens(TOKENS, begin, containers):
        token = match[0]
        if token[:1] == b'"':
            # The string is cut off, so it has no value that counts.
            if not match[1]:
                break
            string = token
        elif token == b":":
            key = string
        elif token in CLOSING:
            containers.append(Container(token, key))
            if len(containers) <= LEVELS:
                stop, open_there = match.end(), _list_brackets(containers)
        elif token != b",":
            if not containers:
                break
            containers.pop()
        else:
            stop, open_there = match.start(), _list_brackets(containers)
    closing = b"".join([CLOSING[open_there[at : at + 1]] for at in reversed(range(len(open_there)))])
    return bytes(begin[:stop]) + closing, containers


def _list_tokens(
    patterns: tuple[re.Pattern[bytes], re.Pattern[bytes]], text: bytes | bytearray, containers: Sized
) -> Iterator[re.Match[bytes]]:
    """Yield up to TOKENS_MAX tokens of a text, by how many containers are open."""
    position = 0
    for _ in range(TOKENS_MAX):
        match = patterns[len(containers) > LEVELS].search(text, position)
        if match is None:
            return
        yield match
        position = match.end()


def _list_brackets(containers: list[Container]) -> bytes:
    return b"".join([container.bracket for container in containers])


def open_end(end: bytes, containers: list[Container]) -> bytes | None:
    """Return the end of a text as a text of its own; None if it has no whole member on one of the first LEVELS.

    `containers`: the ones open at the end of the beginning. One on the second level is taken for the one that is open
    at the start of the end.
    """
    closing: list[bytes] = []
    commas: dict[int, int] = {}
    backwards = end[::-1]
    for match in _list_tokens(REVERSED_TOKENS, backwards, closing):
        token = match[0]
        if token[:1] == b'"':
            if not match[1] or match.end() == len(end):
                break  # It began before, or its quote is an escaped one.
        elif token in OPENING:
            closing.append(token)
        elif not closing:
            return None
        elif token == b",":
            commas[len(closing)] = len(end) - match.start()
        else:
            commas.pop(len(closing), None)
            closing.pop()
    brackets = [OPENING[bracket] for bracket in closing]
    for level in range(min(LEVELS, len(closing)), 0, -1):
        is_known = level == 1 or [container.bracket for container in containers[:level]] == brackets[:level]
        if level in commas and is_known:
            keys = [b"" if outer == b"[" else containers[1].key + b":" for outer in brackets[: level - 1]]
            before = b"".join([bracket + key for bracket, key in zip(brackets, [*keys, b""], strict=False)])
            return before + end[commas[level] :]
    return None
