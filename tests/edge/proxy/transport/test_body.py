"""Request bodies: the bytes sent to the upstream, and the start of the next request."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.edge.errors import RejectedError
from edgeproxy.edge.http1.fields import FieldRules
from edgeproxy.edge.http1.lines import RequestLines
from edgeproxy.edge.proxy.transport.body import ChunkedBody, SizedBody


def fed(body: SizedBody | ChunkedBody, *pieces: bytes) -> bytes:
    return b"".join(body.feed(piece) for piece in pieces)


def test_sized_body_passes_pieces_and_ends_at_its_length() -> None:
    body = SizedBody(5)
    assert fed(body, b"ab") == b"ab"
    assert not body.done
    assert fed(body, b"cde") == b"cde"
    assert (body.done, body.rest) == (True, b"")


def test_bytes_after_a_sized_body_are_left_for_the_next_request() -> None:
    body = SizedBody(3)
    assert fed(body, b"abcGET / HTTP/1.1\r\n") == b"abc"
    assert (body.done, body.rest) == (True, b"GET / HTTP/1.1\r\n")


def test_chunks_are_decoded_and_chunked_again() -> None:
    """RFC 9112 section 7.1; extensions are not for the upstream (section 7.1.1)."""
    body = ChunkedBody()
    assert fed(body, b"3;why=none\r\nabc\r\n2\r\nde\r\n") == b"5\r\nabcde\r\n"
    assert not body.done
    assert fed(body, b"0\r\n\r\nnext") == b"0\r\n\r\n"
    assert (body.done, body.rest) == (True, b"next")


def test_partial_chunk_line_yields_no_data() -> None:
    body = ChunkedBody()
    assert body.feed(b"5\r") == b""
    assert body.feed(b"\nab") == b"2\r\nab\r\n"


def test_trailers_pass_except_those_that_change_the_message() -> None:
    """RFC 9110 section 6.5.1."""
    body = ChunkedBody()
    sent = b"0\r\nX-Sum: 1\r\nContent-Length: 3\r\nX-Customer-Id: me\r\nAuthorization: Bearer k\r\n\r\n"
    assert body.feed(sent) == b"0\r\nX-Sum: 1\r\n\r\n"


def test_proxy_and_key_fields_in_trailers_are_dropped() -> None:
    """Some servers take trailers for fields of the head."""
    body = ChunkedBody(names=RequestLines(FieldRules((b"x-key",), strip=("x-internal-*",))).names)
    sent = b"0\r\nX-Sum: 1\r\nX-Remote-User: root\r\nX_Envoy_Internal: 1\r\nX-Internal-Role: root\r\nx-key: k\r\n\r\n"
    assert body.feed(sent) == b"0\r\nX-Sum: 1\r\n\r\n"


@pytest.mark.parametrize(
    "malformed",
    [
        *(b"x\r\n", b"-1\r\n", b" 3\r\nabc", b"0x3\r\nabc", b"\r\n", b"ffffffffffffffff\r\n"),
        *(b"3\r\nabcd", b"3\nabc", b"3\r\nabc\n"),
    ],
)
def test_malformed_chunked_body_is_refused_with_400(malformed: bytes) -> None:
    with pytest.raises(RejectedError) as raised:
        fed(ChunkedBody(), malformed, b"\r\n\r\n")
    assert (raised.value.status, raised.value.close) == (400, True)


def test_a_chunked_body_past_the_limit_is_413() -> None:
    body = ChunkedBody(most=4)
    body.feed(b"4\r\nabcd\r\n")
    with pytest.raises(RejectedError) as raised:
        body.feed(b"1\r\ne\r\n")
    assert (raised.value.status, raised.value.close) == (413, True)


def test_a_chunked_body_of_exactly_the_limit_passes() -> None:
    body = ChunkedBody(most=4)
    body.feed(b"4\r\nabcd\r\n0\r\n\r\n")
    assert body.done


def decoded(chunked: bytes) -> bytes:
    """The payload of a chunked body without extensions and trailers."""
    payload = b""
    while True:
        size, _, chunked = chunked.partition(b"\r\n")
        n = int(size, 16)
        if not n:
            assert chunked == b"\r\n"
            return payload
        payload += chunked[:n]
        assert chunked[n : n + 2] == b"\r\n"
        chunked = chunked[n + 2 :]


@given(
    st.lists(st.binary(min_size=1, max_size=40), max_size=6), st.binary(max_size=8), st.randoms(use_true_random=False)
)
def test_any_split_gives_the_same_payload_and_the_same_rest(
    chunks: list[bytes], after: bytes, chance: random.Random
) -> None:
    stream = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n" + after
    body = ChunkedBody()
    sent, rest = b"", stream
    while not body.done:
        n = chance.randint(1, 9)
        sent += body.feed(rest[:n])
        rest = rest[n:]
    assert decoded(sent) == b"".join(chunks)
    assert body.rest + rest == after
