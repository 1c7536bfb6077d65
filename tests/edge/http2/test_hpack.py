"""Field blocks: the examples of RFC 7541, refusals, and the library hpack as a second encoder and decoder."""

import hpack
import pytest
from hpack.huffman import HuffmanEncoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH
from hpack.huffman_table import decode_huffman
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.edge.http2 import hpack as ours
from edgeproxy.edge.http2 import huffman
from edgeproxy.edge.http2.errors import CompressionError, ErrorCode, Http2ConnectionError
from edgeproxy.edge.http2.hpack import HpackDecoder, read_integer
from edgeproxy.edge.http2.lines import OVERSIZED, Line, Pseudo, format_line
from tests.edge.http2.peer import Fields, block, integer, literal


def decoder() -> HpackDecoder:
    return HpackDecoder(100, 1 << 16)


def lines(fields: Fields) -> list[Line]:
    return [format_line(name, value) for name, value in fields]


@pytest.mark.parametrize(
    ("section", "data", "mask", "value"),
    [
        ("C.1.1", "0a", 0x1F, 10),
        ("C.1.2", "1f9a0a", 0x1F, 1337),
        ("C.1.3", "2a", 0xFF, 42),
        ("the longest", "7fffffffff7f", 0x7F, 127 + (1 << 35) - 1),
    ],
)
def test_integers_match_the_examples_of_the_rfc(section: str, data: str, mask: int, value: int) -> None:
    encoded = bytes.fromhex(data)
    assert read_integer(encoded + b"\0", 0, mask) == (value, len(encoded))


REQUESTS: list[Fields] = [
    [(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"www.example.com")],
    [
        *[(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"www.example.com")],
        (b"cache-control", b"no-cache"),
    ],
    [
        *[(b":method", b"GET"), (b":scheme", b"https"), (b":path", b"/index.html")],
        *[(b":authority", b"www.example.com"), (b"custom-key", b"custom-value")],
    ],
]
COOKIE = b"foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1"
ANSWERS: list[Fields] = [
    [
        *[(b"status", b"302"), (b"cache-control", b"private"), (b"date", b"Mon, 21 Oct 2013 20:13:21 GMT")],
        (b"location", b"https://www.example.com"),
    ],
    [
        *[(b"status", b"307"), (b"cache-control", b"private"), (b"date", b"Mon, 21 Oct 2013 20:13:21 GMT")],
        (b"location", b"https://www.example.com"),
    ],
    [
        *[(b"status", b"200"), (b"cache-control", b"private"), (b"date", b"Mon, 21 Oct 2013 20:13:22 GMT")],
        *[(b"location", b"https://www.example.com"), (b"content-encoding", b"gzip"), (b"set-cookie", COOKIE)],
    ],
]
C3 = [
    "828684410f7777772e6578616d706c652e636f6d",
    "828684be58086e6f2d6361636865",
    "828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565",
]
C4 = [
    "828684418cf1e3c2e5f23a6ba0ab90f4ff",
    "828684be5886a8eb10649cbf",
    "828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf",
]
C5 = [
    "4803333032580770726976617465611d4d6f6e2c203231204f637420323031332032303a31333a323120474d546e1768747470733a2f2f"
    "7777772e6578616d706c652e636f6d",
    "4803333037c1c0bf",
    "88c1611d4d6f6e2c203231204f637420323031332032303a31333a323220474d54c05a04677a69707738666f6f3d4153444a4b48514b425a"
    "584f5157454f50495541585157454f49553b206d61782d6167653d333630303b2076657273696f6e3d31",
]
C6 = [
    "488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff6e919d29ad171863c78f0b97c8e9ae82ae43d3",
    "4883640effc1c0bf",
    "88c16196d07abe941054d444a8200595040b8166e084a62d1bffc05a839bd9ab77ad94e7821dd7f2e6c7b335dfdfcd5b3960d5af27087f367"
    "2c1ab270fb5291f9587316065c003ed4ee5b1063d5007",
]


@pytest.mark.parametrize(
    ("data", "fields", "size"),
    [
        ("400a637573746f6d2d6b65790d637573746f6d2d686561646572", (b"custom-key", b"custom-header"), 55),
        ("040c2f73616d706c652f70617468", (b":path", b"/sample/path"), 0),
        ("100870617373776f726406736563726574", (b"password", b"secret"), 0),
        ("82", (b":method", b"GET"), 0),
    ],
    ids=["C.2.1", "C.2.2", "C.2.3", "C.2.4"],
)
def test_the_representations_of_appendix_c(data: str, fields: tuple[bytes, bytes], size: int) -> None:
    reader = decoder()
    assert reader.decode(bytes.fromhex(data)) == lines([fields])
    assert reader.size == size
    assert reader.has_changed is (size > 0)


@pytest.mark.parametrize("blocks", [C3, C4], ids=["C.3", "C.4"])
def test_the_requests_of_appendix_c(blocks: list[str]) -> None:
    reader = decoder()
    sizes = []
    for each, fields in zip(blocks, REQUESTS, strict=True):
        assert reader.decode(bytes.fromhex(each)) == lines(fields)
        sizes.append(reader.size)
    assert sizes == [57, 110, 164]


@pytest.mark.parametrize("blocks", [C5, C6], ids=["C.5", "C.6"])
def test_the_evictions_of_appendix_c(blocks: list[str]) -> None:
    """The responses of RFC 7541 with a table of 256 bytes."""
    reader = decoder()
    assert reader.decode(integer(256, 5, 0x20)) == []
    sizes = []
    for each, fields in zip(blocks, ANSWERS, strict=True):
        assert reader.decode(bytes.fromhex(each)) == [(Pseudo.STATUS, fields[0][1]), *lines(fields[1:])]
        sizes.append(reader.size)
    assert sizes == [222, 222, 215]


REFUSED = [
    ("2.3.3 an index behind the table", b"\xbe", "2.3.3"),
    ("2.3.3 a name behind the table", b"\x7f\x00\x01a", "2.3.3"),
    ("2.3.3 nothing behind a literal", b"\x40", "2.3.3"),
    ("4.2 a size behind a field", b"\x82\x20", "4.2"),
    ("4.2 three sizes", b"\x20\x20\x20", "4.2"),
    ("5.1 an integer of six bytes", b"\xff\x80\x80\x80\x80\x80\x00", "5.1"),
    ("5.1 half an integer", b"\xff\x80", "2.3.3"),
    ("5.2 a string behind its block", b"\x00\x05a", "5.2"),
    ("5.2 a Huffman string behind its block", b"\x00\x85a", "5.2"),
    ("5.2 padding of zeros", b"\x00\x01a\x81\x60", "5.2"),
    ("6.1 index 0", b"\x80", "6.1"),
    ("6.3 a table of 4,097 bytes", integer(4097, 5, 0x20), "6.3"),
]


@pytest.mark.parametrize(("why", "data", "section"), REFUSED, ids=[case[0] for case in REFUSED])
def test_a_block_that_cannot_be_read_is_refused_with_its_section(why: str, data: bytes, section: str) -> None:
    with pytest.raises(CompressionError) as refusal:
        decoder().decode(data)
    assert refusal.value.code is ErrorCode.COMPRESSION_ERROR
    assert refusal.value.section == f"RFC 7541 section {section}"


def test_an_index_may_take_two_bytes() -> None:
    reader = decoder()
    for number in range(80):
        reader.decode(literal(b"a", b"%d" % number, 0x40))
    assert reader.decode(integer(126, 7, 0x80) + integer(127, 7, 0x80) + integer(141, 7, 0x80)) == [
        *[b"a: 15", b"a: 14", b"a: 0"]
    ]


def test_an_entry_larger_than_the_table_empties_it() -> None:
    reader = decoder()
    reader.decode(literal(b"a", b"b", 0x40))
    assert reader.size == 34
    assert reader.decode(literal(b"a", b"b" * 4096, 0x40)) == [b"a: " + b"b" * 4096]
    assert reader.size == 0
    with pytest.raises(CompressionError):
        reader.decode(b"\xbe")


def test_a_field_may_be_named_by_an_entry_that_it_evicts() -> None:
    reader = decoder()
    reader.decode(integer(64, 5, 0x20) + literal(b"name", b"1", 0x40))
    assert reader.decode(b"\x7e\x0223") == [b"name: 23"]
    assert reader.decode(b"\xbe") == [b"name: 23"]


def test_a_smaller_table_evicts_and_a_larger_one_does_not_bring_back() -> None:
    reader = decoder()
    reader.decode(literal(b"a", b"b", 0x40) + literal(b"c", b"d", 0x40))
    reader.has_changed = False
    assert reader.decode(integer(40, 5, 0x20) + integer(4096, 5, 0x20) + b"\xbe") == [b"c: d"]
    assert reader.has_changed
    with pytest.raises(CompressionError):
        reader.decode(b"\xbf")


def test_heads_that_are_too_large_are_read_to_their_end() -> None:
    reader = HpackDecoder(3, 40)
    assert reader.decode(block([(b"a", b"b")] * 4)) == [OVERSIZED]
    assert reader.decode(block([(b"a", b"b" * 40)]) + literal(b"c", b"d", 0x40)) == [OVERSIZED]
    assert reader.decode(b"\xbe") == [b"c: d"]
    # An index of one byte counts as many bytes as its entry has, not one.
    assert reader.decode(literal(b"n", b"v" * 20, 0x40) + b"\xbe") == [OVERSIZED]


def test_crumbs_of_a_cookie_count_as_one_field() -> None:
    """A cookie may have as many crumbs as one line with all of them would allow, in any order and from any table."""
    crumbs = [(b"cookie", b"%02d" % number) for number in range(10)]
    joined = len(b"cookie: " + b"; ".join(value for _, value in crumbs))
    for extra, bytes_max, is_whole in ((1, joined + 4, True), (2, joined + 8, False), (1, joined + 3, False)):
        fields = [*crumbs[:5], *[(b"a", b"b")] * extra, *crumbs[5:]]
        for representation in (0, 0x40):
            lines = HpackDecoder(2, bytes_max).decode(block(fields, representation))
            assert (len(lines) == len(fields)) is is_whole
            assert (lines == [OVERSIZED]) is not is_whole


def test_oversized_head_still_yields_method_path_origin_and_host() -> None:
    fields = [(b":method", b"GET"), (b":path", b"/a"), *[(b"a", b"b")] * 20, (b"origin", b"o"), (b"host", b"h")]
    told = [(Pseudo.METHOD, b"GET"), (Pseudo.PATH, b"/a"), b"origin: o", b"host: h", OVERSIZED]
    assert HpackDecoder(9, 4000).decode(block(fields)) == told
    assert HpackDecoder(90, 40).decode(block(fields)) == told
    assert len(HpackDecoder(9, 4000).decode(block([(b"origin", b"o")] * 1000))) < 10


SKIPPED: bytes = (
    b"\x3f\x81\x0a" + literal(b"a", b"1", 0x40) + b"\x82\xbe\x84" + literal(b"long", b"v" * 300) + b"\x7e\x012"
    + literal(b"larger than the table", b"v" * 5000, 0x40) + literal(b"b", b"3", 0x40) + literal(b"c", b"4", 0x40)
)  # fmt: skip
"""The block has a table size, indexes, literals of all kinds, an entry that empties the table, and two that stay."""


@pytest.mark.parametrize("size", [3, 4, 7, 100, 5100])
def test_skipped_parts_change_the_table_as_the_whole_block_does(size: int) -> None:
    whole, parts, rest = HpackDecoder(10, 1000), HpackDecoder(10, 1000), b""
    whole.decode(SKIPPED)
    for start in range(0, len(SKIPPED), size):
        rest = parts.skip(rest + SKIPPED[start : start + size], begins=start < size)
    assert rest == b""
    assert parts.decode(b"\xbe\xbf") == whole.decode(b"\xbe\xbf") == [b"c: 4", b"b: 3"]
    assert parts.size == whole.size


@pytest.mark.parametrize("part", [b"\x3f\x00", b"\xbe", b"\x80", b"\xff" * 9])
def test_a_skipped_part_that_cannot_be_read_ends_the_connection(part: bytes) -> None:
    with pytest.raises(CompressionError):
        HpackDecoder(10, 1000).skip(part, begins=False)


def test_strings_are_remembered_up_to_a_bound() -> None:
    encoder = hpack.Encoder()
    for start in range(ours.STRINGS_MAX + 10):
        value = b"value-%d" % start
        assert decoder().decode(encoder.encode([(b"x-name", value, True)], huffman=True)) == [b"x-name: " + value]
    assert len(ours._strings) <= ours.STRINGS_MAX
    long = b"v" * 200
    assert decoder().decode(hpack.Encoder().encode([(b"x-name", long, True)], huffman=True)) == [b"x-name: " + long]
    assert all(len(string) <= ours.STRING_BYTES_MAX for string in ours._strings)


NAMES = st.sampled_from([b"accept", b"x-a", b"user-agent", b"cookie", b":path", b"Bad", b"te", b"connection"])
VALUES = st.one_of(st.sampled_from([b"", b"/", b"trailers", b"a" * 300]), st.binary(max_size=12))
BLOCKS = st.lists(st.lists(st.tuples(NAMES, VALUES, st.booleans()), max_size=8), max_size=8)


@given(BLOCKS, st.booleans(), st.lists(st.integers(0, 4096), max_size=8))
def test_decoder_reads_blocks_of_another_encoder(
    blocks: list[list[tuple[bytes, bytes, bool]]], huffman: bool, sizes: list[int]
) -> None:
    reader, encoder = decoder(), hpack.Encoder()
    for number, fields in enumerate(blocks):
        if number < len(sizes):
            encoder.header_table_size = sizes[number]
        assert reader.decode(encoder.encode(fields, huffman=huffman)) == [format_line(*field[:2]) for field in fields]
        assert reader.size <= 4096


@given(st.lists(st.binary(max_size=40), max_size=6))
def test_any_bytes_are_read_as_another_reader_does_or_refused(blocks: list[bytes]) -> None:
    reader, other = decoder(), hpack.Decoder()
    for each in blocks:
        try:
            decoded = reader.decode(each)
        except Http2ConnectionError:
            return
        # hpack refuses long integers, and table sizes that it was not configured for. This decoder accepts them.
        try:
            expected = [format_line(bytes(field[0]), bytes(field[1])) for field in other.decode(each, raw=True)]
        except hpack.HPACKError:
            return
        assert decoded == expected


# ---- the Huffman code, beside the library hpack, which reads and writes it in another way


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
