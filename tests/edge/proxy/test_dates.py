"""Every answer of an upstream says when it was made, or else when the edge got it (RFC 9110 section 6.6.1)."""

from email.utils import parsedate_to_datetime
from time import time

import pytest

from edgeproxy.edge.proxy.exchange import runtime
from tests.support.transcript import Edge, chunks, head, ok

THEN = "Tue, 15 Nov 1994 08:12:31 GMT"
NOW, LATER = "Sat, 21 Nov 2026 02:00:00 GMT", "Sat, 21 Nov 2026 02:00:01 GMT"
OK = "HTTP/1.1 200 OK"
FIVE = "Content-Length: 5"
CHUNKED = "Transfer-Encoding: chunked"
HINTS = head("HTTP/1.1 103 Early Hints", "Link: </a>")

ANSWERS = {
    # the lines of an answer, and its body
    "with a length": ((OK, FIVE), b"hello"),
    "longer than what is copied": ((OK, "Content-Length: 70000"), b"x" * 70_000),
    "in chunks": ((OK, CHUNKED), chunks(b"abc", b"de")),
    "no content": (("HTTP/1.1 204 No Content",), b""),
    "no content, which has a length": (("HTTP/1.1 204 No Content", "Content-Length: 0"), b""),
    "not modified": (("HTTP/1.1 304 Not Modified", 'ETag: "a"'), b""),
    "an error": (("HTTP/1.1 503 Service Unavailable", FIVE), b"hello"),
    "of a server that closes": ((OK, "Connection: close", FIVE), b"hello"),
    "of a server of old": (("HTTP/1.0 200 OK", FIVE), b"hello"),
    "with a field of a like name": ((OK, "X-Date: 1", FIVE), b"hello"),
    "with a body that looks like a date": ((OK, "Content-Length: 11"), b"\r\nDate: 1\r\n"),
}


def is_at(monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    """It is so late whenever the edge looks at the clock."""
    monkeypatch.setattr(runtime, "format_date_field", f"Date: {when}\r\n".encode)


@pytest.fixture(autouse=True)
def _(monkeypatch: pytest.MonkeyPatch) -> None:
    is_at(monkeypatch, NOW)


async def dates(edge: Edge, *pieces: bytes, to: str = "GET") -> list[str]:
    """Return the Date lines of the client's answer if the upstream sends these pieces one after the other."""
    client, upstream = await edge.forwards(head(f"{to} /public/ HTTP/1.1", "Host: edge.test"))
    for piece in pieces:
        await upstream.sends(piece)
        await edge.settles()
    answer = await client.gets_answer(to)
    client.closes()
    upstream.closes()
    return answer.all("Date")


async def test_answer_without_a_date_gets_its_arrival_time(edge: Edge) -> None:
    for lines, body in ANSWERS.values():
        whole = head(*lines) + body
        assert await dates(edge, whole) == [NOW]
        assert await dates(edge, whole[:20], whole[20:]) == [NOW]
        assert await dates(edge, head(*lines), body) == [NOW]
        assert await dates(edge, head(*lines), to="HEAD") == [NOW]


async def test_the_upstreams_own_date_stays_alone(edge: Edge) -> None:
    for (first, *lines), body in ANSWERS.values():
        for dated in (head(first, f"Date: {THEN}", *lines), head(first, *lines, f"date: {THEN}")):
            assert await dates(edge, dated + body) == [THEN]
            assert await dates(edge, dated, body) == [THEN]
            assert await dates(edge, dated, to="HEAD") == [THEN]


async def test_answer_preserves_a_date_field_of_any_spelling(edge: Edge) -> None:
    for field in (f"DATE:{THEN}", f"Date : {THEN}"):
        for (first, *lines), body in ANSWERS.values():
            assert await dates(edge, head(first, field, *lines) + body) == [THEN]
            assert await dates(edge, head(first, *lines, field) + body) == [THEN]


async def test_a_date_that_is_none_is_the_upstreams_own_affair(edge: Edge) -> None:
    """It may be replaced, but need not be."""
    for value in ("", "0", "yesterday"):
        assert await dates(edge, ok(b"hello", f"Date: {value}")) == [value]
        assert await dates(edge, head(OK, CHUNKED, f"Date: {value}") + chunks(b"a")) == [value]


async def test_an_answer_that_ends_with_its_connection_gets_a_date(edge: Edge) -> None:
    for version in ("1.1", "1.0"):
        client, upstream = await edge.forwards(head(f"GET /public/ HTTP/{version}", "Host: edge.test"))
        await upstream.sends(head(OK) + b"hello")
        upstream.closes()
        answer = await client.gets_answer()
        assert (answer["Date"], answer.body) == (NOW, b"hello")


async def test_repeated_answer_gets_the_date_of_its_arrival(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [await dates(edge, ok()) for _ in range(2)] == [[NOW]] * 2
    is_at(monkeypatch, LATER)
    await edge.until(lambda: LATER.encode() in edge.runtime.date_line)
    assert [await dates(edge, ok()) for _ in range(2)] == [[LATER]] * 2
    assert await dates(edge, ok(b"hello", f"Date: {NOW}")) == [NOW]


async def test_added_date_is_the_current_time(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    before = int(time()) - 1  # The edge's clock may be half a second behind.
    (date,) = await dates(edge, ok())
    assert before <= parsedate_to_datetime(date).timestamp() <= time()


async def test_interim_answer_gets_no_date(edge: Edge) -> None:
    """A 1xx answer needs none; the one behind it gets it."""
    for answered in (ok(), head(OK, CHUNKED) + chunks(b"hello")):
        client, upstream = await edge.forwards()
        assert "Date" not in await upstream.tells(client, HINTS + answered)
        assert (await client.gets_answer())["Date"] == NOW
        upstream.closes()
