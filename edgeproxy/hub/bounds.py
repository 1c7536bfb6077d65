"""Bounds of a node's answers, which also detect servers that are not Redis. Pure.

They are checked before the parser gets the answer, because it allocates memory for a whole array as soon as it has read
the length. Only the parts of the protocol (RESP 2 and 3) that Redis uses in answers are permitted. The parser
interprets permitted answers like these checks do.
"""

import re

ELEMENTS_MAX = 1 << 16
"""Maximum elements of an array. A cluster has 16384 slots, and each may be on a different node."""
DEPTH_MAX = 8
"""Maximum levels of nested arrays."""
ANSWER_BYTES_MAX = 64 << 20
"""Maximum bytes of a string and of a whole answer. The largest is a part of the directory."""
LINE_BYTES_MAX = 16384
"""Maximum bytes of a line (an error, for example)."""
EXCERPT_CHARACTERS_MAX = 60
"""Maximum characters of an answer in error texts."""

KINDS = b"+-:$=*%~_#,("
_NUMBERS = rb":-?\d{1,19}\r\n"
_HEAD = rb"[*%~]\d{1,5}\r\n"
_SHORT = [
    b"%d(?:%b)" % (tens, b"|".join([b"%d\r\n.{%d}" % (ones, 10 * tens + ones) for ones in range(10)]))
    for tens in (1, 2)
]
_SHORT += [b"%d\r\n.{%d}" % (length, length) for length in range(10)]
_OTHERS = rb"[$=](?:%b)\r\n|[$*]-1\r\n|[+\-,(_#][^\r\n]{0,%d}\r\n" % (b"|".join(_SHORT), LINE_BYTES_MAX)
_VALUES = re.compile(rb"(?:%b|%b|%b)+" % (_NUMBERS, _HEAD, _OTHERS), re.DOTALL)
_EACH = re.compile(rb"((?:%b)+|%b)|%b" % (_NUMBERS, _HEAD, _OTHERS), re.DOTALL)
"""One value, or all adjacent numbers together."""
_STRING = re.compile(rb"[$=](\d{1,8})\r\n")


class AnswerBounds:
    """The bounds of one connection. It cannot be used any more once `check` has raised."""

    def __init__(self) -> None:
        self._open: list[int] = []
        """Missing elements of each open array, the outermost first."""
        self._string = 0
        """Missing bytes of a string."""
        self._rest = b""
        """The beginning of a line."""
        self._size = 0
        """Bytes since the last complete answer, or somewhat more."""

    def check(self, data: bytes) -> None:
        """Check the next bytes. Raises ValueError with a description if they must not be parsed."""
        self._size += len(data)
        data = self._rest + data if self._rest else data
        self._rest = b""
        at, end = 0, len(data)
        while at < end:
            if self._string:
                step = min(self._string, end - at)
                self._string -= step
                at += step
                if not self._string:
                    self._complete(1)
            elif (values := _VALUES.match(data, at)) is not None:
                for some in _EACH.findall(data, at, values.end()):
                    if not some:
                        self._complete(1)
                    elif some.startswith(b":"):
                        self._complete(some.count(b":"))
                    else:
                        self._begin(some)
                at = values.end()
            elif (string := _STRING.match(data, at)) is not None:
                self._string = int(string[1]) + 2
                if self._string > ANSWER_BYTES_MAX:
                    raise _invalid_answer(data, at)
                at = string.end()
            elif data[at] not in KINDS or b"\n" in data[at : at + LINE_BYTES_MAX] or end - at > LINE_BYTES_MAX:
                raise _invalid_answer(data, at)
            else:
                self._rest = data[at:]
                break
        if self._size > ANSWER_BYTES_MAX:
            raise ValueError(f"it answers with more than {ANSWER_BYTES_MAX >> 20} MiB")

    def _begin(self, head: bytes) -> None:
        """Begin an array, a set, or a map, whose keys and values both count."""
        elements = int(head[1:]) * (2 if head.startswith(b"%") else 1)
        if elements > ELEMENTS_MAX:
            raise _invalid_answer(head, 0)
        if not elements:
            self._complete(1)
            return
        self._open.append(elements)
        if len(self._open) > DEPTH_MAX:
            raise ValueError(f"it answers with arrays in arrays, more than {DEPTH_MAX} deep")

    def _complete(self, values: int) -> None:
        """Count complete values, and the arrays that end with them."""
        arrays = self._open
        while arrays:
            if arrays[-1] > values:
                arrays[-1] -= values
                return
            # With its last value an array becomes a complete value.
            values -= arrays.pop() - 1
        self._size = 0


def _invalid_answer(data: bytes, at: int) -> ValueError:
    return ValueError(format_invalid_answer(data[at : at + LINE_BYTES_MAX].partition(b"\r\n")[0]))


def format_invalid_answer(answer: object, question: str | None = None) -> str:
    """Return the error text for a node's `answer` that does not fit the question."""
    return f"it answered {format_excerpt(answer)}{'' if question is None else f' to {question}'}: is it a Redis?"


def format_excerpt(answer: object) -> str:
    """Return the beginning of an answer for error texts and logs."""
    if isinstance(answer, bytes):
        text = answer[:EXCERPT_CHARACTERS_MAX].decode("ascii", "backslashreplace")
        return (
            repr(text)
            if len(text) <= EXCERPT_CHARACTERS_MAX and text.isprintable()
            else repr(answer[: EXCERPT_CHARACTERS_MAX // 4])
        )
    if isinstance(answer, list):
        return f"an array of {len(answer)}"
    return repr(answer)[:EXCERPT_CHARACTERS_MAX]
