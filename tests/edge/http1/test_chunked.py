"""The chunked coding: one decoder for every split of the bytes, and the encoder."""

from itertools import pairwise
from time import perf_counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.edge.errors import RejectedError, UpstreamError
from edgeproxy.edge.http1.chunked import (
    ChunkedDecoder,
    create_response_error,
    decode_chunk,
    encode_chunk,
    encode_last_chunk,
)
from edgeproxy.edge.http1.grammar import LIMITS, HeadLimits

END = b"0\r\n\r\n"


def decode(pieces: list[bytes], limits: HeadLimits = LIMITS) -> tuple[bytes, bool, bytes, list[bytes]]:
    """(payload, done, rest, trailers) after these reads."""
    decoder = ChunkedDecoder(limits=limits)
    payload = b"".join(part for piece in pieces for part in decoder.feed(piece))
    return payload, decoder.done, decoder.rest, decoder.trailers


DECODED = [
    # section, bytes, payload, done, rest, trailers
    ("RFC 9112 7.1", b"3\r\nabc\r\n" + END, b"abc", True, b"", []),
    ("RFC 9112 7.1 several", b"1\r\na\r\n2\r\nbc\r\n" + END, b"abc", True, b"", []),
    ("RFC 9112 7.1 empty", END, b"", True, b"", []),
    ("RFC 9112 7.1 hexadecimal", b"a\r\n0123456789\r\nA\r\n0123456789\r\n" + END, b"0123456789" * 2, True, b"", []),
    ("RFC 9112 7.1 leading zeros", b"000000000000003\r\nabc\r\n000\r\n\r\n", b"abc", True, b"", []),
    ("RFC 9112 7.1 payload of CRLF", b"4\r\n\r\n\r\n\r\n" + END, b"\r\n\r\n", True, b"", []),
    ("RFC 9112 7.1.1 extension", b"3;a=b\r\nabc\r\n0;c\r\n\r\n", b"abc", True, b"", []),
    ("RFC 9112 7.1.1 quoted", b'3;a="b;\tc\xe9"\r\nabc\r\n' + END, b"abc", True, b"", []),
    ("RFC 9112 7.1.1 bad whitespace", b"3 \t; a = b\r\nabc\r\n" + END, b"abc", True, b"", []),
    ("RFC 9112 7.1.1 padding", b"3 \t \r\nabc\r\n0 \r\n\r\n", b"abc", True, b"", []),
    ("RFC 9112 9.3.2 the next message", END + b"GET /", b"", True, b"GET /", []),
    ("RFC 9112 7.1.2", b"0\r\nX-Sum: 1\r\nx-b:\r\n\r\nz", b"", True, b"z", [b"X-Sum: 1", b"x-b:"]),
    ("RFC 9112 7.1 not all there", b"3\r\nab", b"ab", False, b"", []),
    ("RFC 9112 7.1 half a line", b"3\r\nabc\r\n1", b"abc", False, b"", []),
    ("RFC 9112 7.1 half an end", b"3\r\nabc\r", b"abc", False, b"", []),
    ("RFC 9112 7.1.2 no end of the trailers", b"0\r\nA: b\r\n", b"", False, b"", [b"A: b"]),
]


@pytest.mark.parametrize(("rule", "data", "payload", "done", "rest", "trailers"), DECODED, ids=[c[0] for c in DECODED])
def test_chunked_body_decodes_for_any_split(
    rule: str, data: bytes, payload: bytes, done: bool, rest: bytes, trailers: list[bytes]
) -> None:
    expected = (payload, done, rest, trailers)
    assert decode([data]) == expected
    assert decode([data[i : i + 1] for i in range(len(data))]) == expected
    for cut in range(len(data) + 1):
        assert decode([data[:cut], data[cut:]]) == expected


MALFORMED = [
    ("RFC 9112 7.1 nothing", b"\r\n"),
    ("RFC 9112 7.1 not a digit", b"g\r\n"),
    ("RFC 9112 7.1 a sign", b"+3\r\nabc\r\n"),
    ("RFC 9112 7.1 a prefix", b"0x3\r\nabc\r\n"),
    ("RFC 9112 7.1 an underscore", b"1_0\r\n"),
    ("RFC 9112 7.1 16 digits", b"0000000000000003\r\nabc\r\n"),
    ("RFC 9112 7.1 space before", b" 3\r\nabc\r\n"),
    ("RFC 9112 7.1.1 too much padding", b"3" + b" " * 4094 + b"\r\nabc\r\n"),
    ("RFC 9112 2.2 bare LF behind padding", b"3 \nabc\r\n"),
    ("RFC 9112 7.1.1 no semicolon", b"3 a\r\nabc\r\n"),
    ("RFC 9112 7.1.1 control character", b"3;a\x01\r\nabc\r\n"),
    ("RFC 9112 7.1.1 bare CR", b"3;a\rb\r\nabc\r\n"),
    ("RFC 9112 7.1.1 too long", b"3;" + b"a" * 4093 + b"\r\nabc\r\n"),
    ("RFC 9112 7.1.1 too long and no end", b"3;" + b"a" * 4095),
    ("RFC 9112 2.2 bare LF", b"3\nabc\r\n"),
    ("RFC 9112 2.2 nothing but LF", b"\n"),
    ("RFC 9112 2.2 bare LF behind the payload", b"3\r\nabc\n"),
    ("RFC 9112 2.2 bare LF in the last line", b"0\r\n\n"),
    ("RFC 9112 2.2 bare LF behind a trailer", b"0\r\nA: b\n"),
    ("RFC 9112 7.1 more payload than said", b"3\r\nabcd"),
    ("RFC 9112 7.1 CR alone behind the payload", b"3\r\nabc\rd"),
    ("RFC 9112 7.1 a line between", b"3\r\nabcd\r\n"),
    ("RFC 9112 7.1.2 no colon", b"0\r\nA\r\n"),
    ("RFC 9112 5.1 space before the colon", b"0\r\nA : b\r\n"),
    ("RFC 9112 5.2 folded trailer", b"0\r\nA: b\r\n c\r\n"),
    ("RFC 9110 5.5 bare CR in a trailer", b"0\r\nA: b\rc\r\n"),
]


@pytest.mark.parametrize(("rule", "data"), MALFORMED, ids=[case[0] for case in MALFORMED])
def test_malformed_chunked_body_is_refused_for_any_split(rule: str, data: bytes) -> None:
    for pieces in ([data], [data[i : i + 1] for i in range(len(data))]):
        with pytest.raises(RejectedError) as refusal:
            decode(pieces)
        assert refusal.value.status == 400


def test_an_upstream_that_sends_a_malformed_body_is_at_fault() -> None:
    with pytest.raises(UpstreamError) as fault:
        ChunkedDecoder(create_response_error).feed(b"x\r\n")
    assert (fault.value.error, fault.value.status) == ("http_protocol_error", 502)


def test_a_chunk_line_of_4096_bytes_is_the_longest() -> None:
    assert decode([b"3;" + b"a" * 4092 + b"\r\nabc\r\n"])[0] == b"abc"


def test_chunk_extensions_are_limited_in_proportion_to_the_payload() -> None:
    """RFC 9112 section 7.1.1: a recipient limits their total length."""
    signed = b"1000;signature=" + b"a" * 64 + b"\r\n" + b"x" * 4096 + b"\r\n"
    assert len(decode([signed * 2000 + END])[0]) == 2000 * 4096
    few = b"1;" + b"a" * 4000 + b"\r\nx\r\n"
    assert decode([few * 4 + END])[0] == b"xxxx"
    with pytest.raises(RejectedError):
        decode([few * 5])
    with pytest.raises(UpstreamError) as fault:
        ChunkedDecoder(create_response_error).feed(few * 5)
    assert fault.value.is_local, "a bound of the edge is no fault of the upstream"
    with pytest.raises(UpstreamError) as fault:
        ChunkedDecoder(create_response_error).feed(b"3\r\nabcdef")
    assert not fault.value.is_local, "a chunk that is longer than it says is one"


def test_overlong_chunk_is_refused_at_its_first_excess_byte() -> None:
    decoder = ChunkedDecoder()
    assert decoder.feed(b"3\r\nabc") == [b"abc"]
    with pytest.raises(RejectedError):
        decoder.feed(b"d")


def test_trailer_sections_are_limited() -> None:
    """RFC 9112 section 7.1.2: as any header section is."""
    limits = HeadLimits(head=20, fields=2)
    assert decode([b"0\r\nA: 1\r\nB: 2\r\n\r\n"], limits)[1]
    assert decode([b"0\r\nA: 1234567890123\r\n\r\n"], limits)[1]
    assert decode([b"0\r\nA: 12345678901234567\r\n\r\n"], limits)[1], "20 bytes and the blank line"
    assert decode([b"0\r\nA: 123456\r\nB: 123456\r\n\r\n"], limits)[1], "9 bytes twice, and a CRLF between"
    for trailers in (
        b"A: 1\r\nB: 2\r\nC: 3\r\n",
        b"A: 123456789012345678\r\n\r\n",
        b"A: 123456\r\nB: 1234567\r\n\r\n",
        b"A: 12345678901234567890",
    ):
        with pytest.raises(RejectedError) as refusal:
            decode([b"0\r\n" + trailers], limits)
        assert refusal.value.status == 431, "as a head"
        with pytest.raises(UpstreamError) as fault:
            ChunkedDecoder(create_response_error, limits).feed(b"0\r\n" + trailers)
        assert (fault.value.error, fault.value.is_local) == ("http_response_trailer_section_size", True)


NEVER_TRAILERS = [
    ("framing", "Transfer-Encoding Content-Length Trailer"),
    ("routing", "Host X-Forwarded-Host X-Forwarded-For Forwarded Via"),
    ("modifiers", "Cache-Control Max-Forwards Expect Range Pragma TE If-Match If-None-Match"),
    ("authentication", "Authorization X-API-Key Set-Cookie Cookie WWW-Authenticate"),
    ("content", "Content-Encoding Content-Type Content-Range"),
    ("connection", "Connection Keep-Alive Upgrade Proxy-Authorization"),
    ("stamps", "X-Customer-Id X-Customer-Tier X-Edge-Region X-Edge-Signature X-Request-Id traceparent X-Real-IP"),
    ("stamps spelt otherwise", "X_Customer_Id x-customer_id X_REQUEST_ID"),
    ("limits", "RateLimit RateLimit-Policy"),
]


@pytest.mark.parametrize(("what", "names"), NEVER_TRAILERS, ids=[case[0] for case in NEVER_TRAILERS])
def test_a_field_that_has_no_place_in_a_trailer_section_is_dropped(what: str, names: str) -> None:
    """RFC 9110 section 6.5.1."""
    section = b"".join(b"%b: 1\r\n" % name.encode() for name in names.split())
    assert decode([b"0\r\nX-Sum: 1\r\n" + section + b"\r\n"]) == (b"", True, b"", [b"X-Sum: 1"])


def test_bytes_after_the_body_are_kept_over_several_reads() -> None:
    assert decode([END + b"G", b"E", b"", b"T"]) == (b"", True, b"GET", [])


def test_payload_passes_in_large_pieces() -> None:
    large = b"x" * (1 << 20)
    decoder = ChunkedDecoder()
    assert decoder.feed(b"200000\r\n") == []
    assert decoder.feed(large)[0] is large
    assert decoder.feed(large + b"\r\n") == [large]
    assert ChunkedDecoder().feed(b"100000\r\n" + large + b"\r\n") == [large]


def test_bytes_that_come_one_by_one_cost_the_same_each() -> None:
    """A line is gathered, not put together anew at every byte."""

    def seconds(length: int) -> float:
        best = []
        for _ in range(3):
            decoder = ChunkedDecoder(limits=HeadLimits(head=1 << 20))
            decoder.feed(b"0\r\nA: ")
            began = perf_counter()
            for _ in range(length):
                decoder.feed(b"a")
            best.append(perf_counter() - began)
        return min(best)

    assert seconds(100_000) < 30 * seconds(10_000)  # in proportion 10 times as long; put together anew, 100 times


# ---- the encoder


def test_pieces_become_one_chunk() -> None:
    assert encode_chunk([b"abc", b"", b"0123456789abc"]) == b"10\r\nabc0123456789abc\r\n"


def test_encoding_no_data_yields_no_chunk() -> None:
    """RFC 9112 section 7.1: a chunk of size 0 would end the body."""
    assert encode_chunk([]) == encode_chunk([b"", b""]) == b""


def test_chunk_that_is_encoded_is_decoded_to_its_payload() -> None:
    assert decode_chunk(encode_chunk([b"a\r\n", b"b"]) + encode_last_chunk([b"X: y"])) == b"a\r\nb"
    assert decode_chunk(encode_last_chunk()) == decode_chunk(b"") == b""


def test_the_end_carries_the_trailers() -> None:
    assert encode_last_chunk() == END
    assert encode_last_chunk([b"A: b", b"C: d"]) == b"0\r\nA: b\r\nC: d\r\n\r\n"


PAYLOADS = st.lists(st.binary(max_size=40), max_size=8)
TRAILERS = st.lists(st.sampled_from([b"X-Sum: 1", b"A:", b"B: \xe9"]), max_size=3)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """The pieces of `data` between these places."""
    ends = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[begin:end] for begin, end in pairwise(ends)]


@given(PAYLOADS, TRAILERS, st.binary(max_size=10), st.lists(st.integers(0, 1000), max_size=12))
def test_chunked_coding_round_trips(pieces: list[bytes], trailers: list[bytes], rest: bytes, places: list[int]) -> None:
    data = b"".join(encode_chunk([piece]) for piece in pieces) + encode_last_chunk(trailers) + rest
    assert decode(cut(data, places)) == (b"".join(pieces), True, rest, trailers)


STREAMS = st.lists(
    st.sampled_from(
        (
            *(b"3\r\nabc\r\n", b"1;x=y\r\na\r\n", b"0\r\n", b"\r\n", b"\n", b"\r", b"a", b"A: b\r\n", b"10\r\n"),
            *(b"0123456789abcdef", b";", b" ", b"g", b"2\r\n\r\n\r\n", b"Host: a\r\n", b"00\r\n"),
        )
    ),
    max_size=10,
).map(b"".join)


@given(STREAMS, st.lists(st.integers(0, 1000), max_size=12))
def test_any_split_of_any_stream_comes_to_the_same(data: bytes, places: list[int]) -> None:
    def outcome(pieces: list[bytes]) -> object:
        try:
            return decode(pieces)
        except RejectedError:
            return "refused"

    assert outcome(cut(data, places)) == outcome([data])
