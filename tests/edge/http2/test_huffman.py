"""The Huffman code of HPACK, beside the library hpack, which reads and writes it in another way."""

import pytest
from hpack.huffman import HuffmanEncoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH
from hpack.huffman_table import decode_huffman
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.edge.http2 import huffman
from edgeproxy.edge.http2.errors import CompressionError

OTHER = HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH)


def test_codes_equal_appendix_b() -> None:
    assert [(int(code, 2), len(code)) for code in huffman.CODES] == list(
        zip(REQUEST_CODES, REQUEST_CODES_LENGTH, strict=True)
    )


@given(st.binary(max_size=80))
def test_huffman_code_round_trips_and_equals_the_library(data: bytes) -> None:
    encoded = huffman.encode(data)
    assert encoded == OTHER.encode(data)
    assert huffman.decode(encoded) == data


@given(st.binary(max_size=12))
def test_any_bytes_mean_the_same_to_both_or_nothing(data: bytes) -> None:
    try:
        expected = decode_huffman(data)
    except Exception:
        with pytest.raises(CompressionError):
            huffman.decode(data)
    else:
        assert huffman.decode(data) == expected


@pytest.mark.parametrize(
    ("why", "data"),
    [
        ("RFC 7541 5.2: a byte of padding", huffman.encode(b"/") + b"\xff"),
        ("RFC 7541 5.2: padding of zeros", b"\x60"),
        ("RFC 7541 5.2: EOS", b"\xff\xff\xff\xff"),
        ("RFC 7541 5.2: a code that is cut off", b"\xff\xff\xfe"),
    ],
)
def test_invalid_huffman_string_is_refused_with_its_rfc_section(why: str, data: bytes) -> None:
    with pytest.raises(CompressionError) as refusal:
        huffman.decode(data)
    assert refusal.value.section == "RFC 7541 section 5.2"


def test_huffman_decoder_has_at_most_256_states() -> None:
    for first in range(256):
        for second in range(256):
            try:
                huffman.decode(bytes((first, second, 0xFF, second, first)))
            except CompressionError:
                pass
    assert len(huffman.STATES) <= 256
