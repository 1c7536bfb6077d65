"""Bounds on Redis answers: the parser reads what passes them, and never allocates far more than it received."""

import random
import re
from typing import Any

import hiredis
import pytest

from edgeproxy.hub.bounds import (
    ANSWER_BYTES_MAX,
    DEPTH_MAX,
    ELEMENTS_MAX,
    LINE_BYTES_MAX,
    AnswerBounds,
    format_excerpt,
)


def written(chance: random.Random, depth: int = 0) -> bytes:
    """Return a random Redis answer."""
    kind = chance.choice(":+-$=_#,(n" if depth > 3 or chance.random() < 0.4 else "*%~")
    if kind in "*%~":
        many = chance.choice([0, 1, 2, 5])
        values = [written(chance, depth + 1) for _ in range(many)]
        if kind == "%":
            # Keys must be hashable.
            values = [part for value in values for part in (b":%d\r\n" % chance.randrange(1000), value)]
        if kind == "~":
            values = [b":%d\r\n" % chance.randrange(1000) for _ in values]
        return kind.encode() + b"%d\r\n" % many + b"".join(values)
    if kind in "$=":
        text = chance.randbytes(chance.choice([0, 1, 9, 10, 24, 29, 30, 200, 9000]))
        text = b"txt:" + text if kind == "=" else text
        return kind.encode() + b"%d\r\n%b\r\n" % (len(text), text)
    others = {":": b":-12\r\n", "+": b"+OK\r\n", "-": b"-ERR no\r\n", "_": b"_\r\n", "#": b"#t\r\n"}
    return (others | {",": b",1.5\r\n", "(": b"(123456789012345678901\r\n", "n": b"$-1\r\n*-1\r\n"})[kind]


def test_answers_pass_with_any_read_boundaries_and_their_ends_are_known(seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(300):
        answers = [written(chance) for _ in range(chance.randrange(1, 8))]
        data, bounds = b"".join(answers), AnswerBounds()
        cuts = sorted(chance.randrange(len(data) + 1) for _ in range(chance.randrange(20)))
        for since, until in zip([0, *cuts], [*cuts, len(data)], strict=True):
            bounds.check(data[since:until])
        assert (bounds._open, bounds._string, bounds._rest, bounds._size) == ([], 0, b"", 0), data


def test_parser_reads_only_data_checked_by_the_bounds(seed: int) -> None:
    """In randomly damaged answers, the parser never reads more or other data than the bounds have checked."""
    chance, passed = random.Random(seed), 0
    for _ in range(3000):
        data = bytearray(b"".join(written(chance, 2) for _ in range(3)))
        for _ in range(chance.randrange(3)):
            data[chance.randrange(len(data))] = chance.choice(b"0123456789*$%:+\r\n-")
        bounds, reader = AnswerBounds(), hiredis.Reader()
        try:
            bounds.check(bytes(data))
        except ValueError:
            continue
        passed += 1
        reader.feed(bytes(data))
        try:
            while reader.gets() is not False:
                pass
        except (hiredis.ProtocolError, TypeError, ValueError):
            continue
        if not (bounds._open or bounds._string or bounds._rest):
            assert not reader.has_data(), data
    assert passed > 500


def look(chunks: list[bytes]) -> None:
    """Check these chunks."""
    bounds = AnswerBounds()
    for chunk in chunks:
        bounds.check(chunk)


TOO_MUCH = {
    "an array": (b"*1000000000\r\n", r"\*1000000000"),
    "one more": (b"*%d\r\n" % (ELEMENTS_MAX + 1), "answered"),
    "a map": (b"%%%d\r\n" % (ELEMENTS_MAX // 2 + 1), "answered"),
    "one in another": (b"*2\r\n:1\r\n*99999\r\n", "99999"),
    "beyond any number": (b"*99999999999999999999\r\n", "answered"),
    "a string": (b"$2000000000\r\n", r"\$2000000000"),
    "one somewhat too long": (b"$%d\r\n" % ANSWER_BYTES_MAX, "answered"),
    "deep": (b"*1\r\n" * (DEPTH_MAX + 1), "deep"),
    "a line": (b"+" + b"a" * (LINE_BYTES_MAX + 10), "answered"),
    "hidden behind a string": (b"$2\r\nabXX*1000000000\r\n", None),
    "web": (b"HTTP/1.1 200 OK\r\n", "'H"),
    "newline": (b":1\n", "answered"),
    "length of letters": (b"*a\r\n", "answered"),
    "no length": (b"$\r\n", "answered"),
    "streamed": (b"$?\r\n", "answered"),
    "attributes": (b"|1\r\n", "answered"),
    "pushed": (b">1\r\n", "answered"),
    "nothing": (b"\r\n", "answered"),
}


@pytest.mark.parametrize(("data", "why"), TOO_MUCH.values(), ids=TOO_MUCH)
@pytest.mark.parametrize("step", [1, 7, 1 << 20])
def test_too_large_or_invalid_answers_are_rejected(data: bytes, why: str | None, step: int) -> None:
    with pytest.raises(ValueError) as odd:
        look([*[data[since : since + step] for since in range(0, len(data), step)], b":1\r\n" * 5])
    if why is not None:
        assert re.search(why, str(odd.value)), odd.value


def test_an_endless_answer_is_rejected() -> None:
    part = b"$1000000\r\n" + bytes(1_000_000) + b"\r\n"
    look([b"*60000\r\n", *[part] * 67])
    with pytest.raises(ValueError, match="more than 64 MiB"):
        look([b"*60000\r\n", *[part] * 68])


def test_answer_bounds_reset_after_each_answer() -> None:
    bounds = AnswerBounds()
    part = b"$%d\r\n%b\r\n" % (30 << 20, bytes(30 << 20))
    for _ in range(3):
        bounds.check(part)


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (b"OK", "'OK'"),
        (b"\xff\x00", r"b'\xff\x00'"),
        (b"a" * 1000, "'" + "a" * 60 + "'"),
        ([1, 2], "an array of 2"),
        (5, "5"),
        (None, "None"),
    ],
)
def test_excerpts_of_answers_are_short(answer: Any, text: str) -> None:
    assert format_excerpt(answer) == text
