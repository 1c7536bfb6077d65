"""The heads of answers, read by the library hpack, whose table stays empty."""

import hpack
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edgeproxy.edge.http2 import answer
from edgeproxy.edge.http2.answer import encode_head, encode_line, encode_lines, encode_pieces


def read(block: bytes) -> list[tuple[bytes, bytes]]:
    decoder = hpack.Decoder()
    fields = [(bytes(name), bytes(value)) for name, value in decoder.decode(b"\x20" + block, raw=True)]
    assert not decoder.header_table.dynamic_entries
    return fields


HEAD = (
    b"HTTP/1.1 404 Not Found\r\nContent-Type: text/plain\r\nContent-Length: 5\r\nConnection: close\r\nX-Empty:\r\n"
    b"Transfer-Encoding: chunked\r\nKeep-Alive: timeout=5\r\nX-Request-Id: abc\r\nSet-Cookie: a=b; Secure\r\n"
)
FIELDS = [
    (b":status", b"404"),
    (b"content-type", b"text/plain"),
    (b"content-length", b"5"),
    (b"x-empty", b""),
    (b"x-request-id", b"abc"),
    (b"set-cookie", b"a=b; Secure"),
]


def test_connection_fields_are_left_out_of_an_http2_head() -> None:
    assert read(encode_head(HEAD)) == FIELDS
    assert read(encode_head(HEAD)) == FIELDS  # As it is remembered.


@pytest.mark.parametrize(("status", "block"), [(b"200", b"\x88"), (b"304", b"\x8b"), (b"418", None)])
def test_status_is_encoded_as_an_index_if_available(status: bytes, block: bytes | None) -> None:
    encoded = encode_head(b"HTTP/1.1 %b Reason: said\r\n" % status)
    assert read(encoded) == [(b":status", status)]
    assert block is None or encoded == block


def test_a_secret_is_never_indexed() -> None:
    assert encode_line(b"Set-Cookie: secret")[0] & 0xF0 == 0x10
    assert encode_line(b"X-Other: public")[0] & 0xF0 == 0x00


def test_trailers_are_encoded_as_lines_are() -> None:
    assert read(encode_lines([b"X-Sum: 1", b"Grpc-Status:0"])) == [(b"x-sum", b"1"), (b"grpc-status", b"0")]


@given(st.sampled_from([b"Date", b"X-Thing", b"Location", b"accept"]), st.text("aZ09 ;=-~\\", max_size=400))
def test_any_line_is_read_as_it_was_written(name: bytes, value: str) -> None:
    line = name + b": " + value.encode()
    assert read(encode_line(line)) == [(name.lower(), value.strip().encode())]
    assert read(encode_line(line)) == [(name.lower(), value.strip().encode())]


def test_lines_are_remembered_up_to_a_bound() -> None:
    for number in range(answer.LINES_MAX + 10):
        encode_line(b"X-Number: %d" % number)
    assert len(answer._lines) <= answer.LINES_MAX
    encode_line(b"X-Long: " + b"x" * 300)
    encode_line(b"Date: today")
    assert not any(len(line) > answer.LINE_BYTES_MAX or line.startswith(b"Date") for line in answer._lines)


LINES = st.lists(
    st.sampled_from(
        [
            *(b"Date: today", b"X-A: b", b"Connection: close", b"Vary: \t*", b"X-RateLimit: 5"),
            *(b"RateLimit: r=1", b"RateLimit: \tr=2 ", b"RateLimit: ", b"RateLimit: " + 200 * b"r"),
        ]
    )
)


@example([], [b"Date: today", b"RateLimit: ", b"Date: today"], [], b"")
@given(LINES, LINES, LINES, st.binary(max_size=200).map(bytes.hex).map(str.encode))
def test_head_in_pieces_encodes_like_a_whole_head(
    keep: list[bytes], changing: list[bytes], own: list[bytes], value: bytes
) -> None:
    pieces = [b"".join(line + b"\r\n" for line in lines) for lines in ([b"HTTP/1.1 200 OK", *keep], changing, own)]
    opening = pieces[2] + b"X-Request-Id: "
    head = b"".join((*pieces[:2], opening, value, b"\r\n"))
    for _ in range(2):  # As it is remembered, too.
        assert read(encode_pieces(pieces[0], pieces[1], opening, value)) == read(encode_head(head))
