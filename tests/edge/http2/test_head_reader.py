"""The memory of heads gives the results of the library hpack, which has no memory.

The encoder writes unusual blocks (odd_encoder.py).
"""

import random

import hpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.edge.http1.grammar import LIMITS, HeadLimits, is_field_value
from edgeproxy.edge.http2 import head_reader, open_head
from edgeproxy.edge.http2.answer import encode_string
from edgeproxy.edge.http2.errors import CompressionError, Http2StreamError
from edgeproxy.edge.http2.head_reader import (
    HEADS_BYTES_MAX,
    HEADS_MAX,
    OPEN_BLOCK_BYTES_MAX,
    OPEN_HEADS_MAX,
    HeadReader,
)
from edgeproxy.edge.http2.hpack import UNINDEXED_MAX, HpackDecoder
from edgeproxy.edge.http2.lines import format_line
from edgeproxy.edge.http2.open_head import ENCODED_BYTES_MAX, ValueCache
from edgeproxy.edge.http2.request import format_head
from tests.edge.http2.fuzz_run import fuzz_for_long
from tests.edge.http2.odd_encoder import OddEncoder, draw_fields
from tests.edge.http2.peer import GET, GET_HEAD, Fields, block, literal


def read(reader: HeadReader, data: bytes, *, ended: bool = True) -> tuple[bytes, int] | str:
    try:
        return reader.read_head(data, ended=ended)
    except (Http2StreamError, CompressionError) as error:
        return error.detail


def compare_readers(draw: random.Random) -> int:
    """Read some blocks with the memory, and with a library that has none; return how many."""
    # Half of the runs use short heads that differ in one field: after each insertion, one byte names another field.
    usual = [draw_fields(draw) for _ in range(4)]
    if draw.random() < 0.5:
        name = draw.choice((b"x-a", b"content-length"))
        usual = [
            [*[(b":method", b"GET"), (b":path", b"/"), (b":scheme", b"https")], (name, b"%d" % i)] for i in range(6)
        ]
    # Where little is inserted, heads are remembered without their new values.
    reader, encoder, other = (
        HeadReader(LIMITS, websockets=False),
        OddEncoder(draw, draw.choice((0.7, 0.02))),
        hpack.Decoder(),
    )
    encoder_blocks: list[bytes] = []
    ended = draw.random() < 0.7
    for count in range(40):
        repeats = encoder_blocks and draw.random() < 0.2
        data = encoder_blocks[-1] if repeats else encoder.encode(draw.choice(usual))
        encoder_blocks.append(data)
        try:
            fields = [(bytes(name), bytes(value)) for name, value in other.decode(data, raw=True)]
        except hpack.HPACKError:
            return count  # A repeated block may name an entry that it has itself evicted.
        encoder.table = [(bytes(name), bytes(value)) for name, value in other.header_table.dynamic_entries]
        encoder.limit = other.header_table.maxsize
        expected: tuple[bytes, int] | str
        try:
            expected = format_head([format_line(*field) for field in fields], ended=ended)
        except Http2StreamError as error:
            expected = error.detail
        assert read(reader, data, ended=ended) == expected
    return 40


@given(st.integers(0, 1 << 32))
def test_head_memory_agrees_with_a_reader_without_memory(number: int) -> None:
    compare_readers(random.Random(number))


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_head_memory_agrees_with_a_reader_without_memory_for_long(seed: int) -> None:
    fuzz_for_long(seed, compare_readers)


def test_a_request_that_is_repeated_has_the_same_head_as_an_object() -> None:
    reader = HeadReader(LIMITS, websockets=False)
    first = reader.read_head(block(GET), ended=True)
    assert first == (GET_HEAD, -1)
    assert reader.read_head(bytes(bytearray(block(GET))), ended=True) is first


def test_head_of_one_block_differs_with_a_body() -> None:
    reader = HeadReader(LIMITS, websockets=False)
    assert reader.read_head(block(GET), ended=True) != reader.read_head(block(GET), ended=False)
    assert reader.read_head(block(GET), ended=True)[0] == GET_HEAD


@pytest.mark.parametrize("change", ["head", "trailers", "skip", "malformed"])
def test_heads_are_forgotten_whenever_the_table_changes(change: str) -> None:
    reader = HeadReader(LIMITS, websockets=False)
    reader.skip(literal(b"x", b"1", 0x40))
    data = block(GET) + b"\xbe"
    assert reader.read_head(data, ended=True)[0] == GET_HEAD[:-2] + b"x: 1\r\n\r\n"
    inserting = literal(b"x", b"2", 0x40)
    if change == "head":
        reader.read_head(block(GET) + inserting, ended=True)
    elif change == "trailers":
        assert reader.read_trailers(inserting) == [b"x: 2"]
    elif change == "malformed":
        with pytest.raises(Http2StreamError):
            reader.read_head(inserting, ended=True)
    else:
        reader.skip(inserting)
    assert reader.read_head(data, ended=True)[0] == GET_HEAD[:-2] + b"x: 2\r\n\r\n"


def test_head_memory_is_bounded() -> None:
    reader = HeadReader(LIMITS, websockets=False)
    for number in range(HEADS_MAX + 1):
        reader.read_head(block([*GET, (b"x-%d" % number, b"")]), ended=True)
    assert reader.stored_bytes < 8 * len(GET_HEAD)
    for number in range(60):
        value = b"x" * (
            4000 if number < 20 else 1900 - number % 7 * 200
        )  # A block of 4,000 bytes is only remembered as a whole.
        reader.read_head(block([*GET, (b"x-%d" % number, value)]), ended=number % 2 > 0)
        assert reader.stored_bytes <= HEADS_BYTES_MAX
    before = reader.stored_bytes
    reader.read_head(block([*GET, (b"x", b"y" * 20_000)]), ended=True)
    assert reader.stored_bytes <= before


def test_heads_of_many_keys_leave_room_and_a_key_is_in_no_shared_head() -> None:
    reader = HeadReader(LIMITS, websockets=False)
    frequent = block(GET)
    reader.read_head(frequent, ended=True)
    for number in range(HEADS_MAX * 4):
        for ended in (True, False):
            head = reader.read_head(keyed(b"/%d" % number, b"Bearer k%d" % number), ended=ended)[0]
            assert head.startswith(b"GET /%d HTTP/1.1\r\nHost: a\r\nauthorization: Bearer k%d\r\n" % (number, number))
    assert reader.read_head(frequent, ended=True) is reader.read_head(frequent, ended=True)
    for known in reader._open_heads[True] + reader._open_heads[False]:
        pieces = [piece for before, _, behind in known.values for piece in (before, behind)]
        assert b"Bearer" not in b"".join([known.beginning, *pieces, known.end])
    assert sum(map(len, reader._heads)) <= HEADS_MAX // 2


def keyed(path: bytes, key: bytes, kind: int = 0, behind: bytes = b"") -> bytes:
    """A block of one client: only path and key are literals, as nghttp2 and others send them."""
    return (
        b"\x82\x87"
        + literal(b":path", path, kind)
        + literal(b":authority", b"a")
        + literal(b"authorization", key, kind)
        + behind
    )


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> HeadReader:
    """A reader that has read a keyed block, and cannot read any other block in full."""
    reader = HeadReader(LIMITS, websockets=False)
    reader.read_head(keyed(b"/", b"Bearer one"), ended=True)
    monkeypatch.setattr(HpackDecoder, "_read_block", lambda *_: pytest.fail("The whole block is read"))
    return reader


@pytest.mark.patches_methods
def test_only_path_and_key_of_another_customer_are_read(shared: HeadReader) -> None:
    for path, key in ((b"/", b"Bearer two"), (b"/b?c=d", b"Bearer one"), (b"/b", b"")):
        head = b"GET %b HTTP/1.1\r\nHost: a\r\nauthorization: %b\r\n\r\n" % (path, key)
        assert shared.read_head(keyed(path, key), ended=True) == (head, -1)


@pytest.mark.parametrize(
    "data",
    [
        keyed(b"/", b"Bearer two", 0x10),
        keyed(b"/", b"Bearer two", 0x40),
        keyed(b"/", b"Bearer two", behind=literal(b"x", b"y")),
        keyed(b"/", b"Bearer two", behind=b"\x84"),
        keyed(b"/", b"Bearer two")[:-1],
        keyed(b"/", b"")[:-1],
        keyed(b"*", b"Bearer two"),
        keyed(b"b", b"Bearer two"),
        keyed(b"/", b" Bearer two"),
        keyed(b"/", b"Bearer\r\nx: y"),
        keyed(b"/", b"x" * 500),
        keyed(b"/", b"Bearer two").replace(b"authorization", b"authorizatiom"),
        keyed(b"/", b"Bearer two").replace(b"\x82", b"\x83"),
    ],
)
def test_any_other_difference_is_read_in_full(data: bytes) -> None:
    reader, other = (
        HeadReader(HeadLimits(head=500), websockets=False),
        HeadReader(HeadLimits(head=500), websockets=False),
    )
    reader.read_head(keyed(b"/", b"Bearer one"), ended=True)
    # Whole strings of others are cached: a part of one must not pass for it.
    for path, key in ((b"/", b"Bearer two"), (b"/b", b"Bearer"), (b"/", b"")):
        reader.read_head(keyed(path, key), ended=True)
    assert read(reader, data) == read(other, data)
    assert reader._decoder.size == other._decoder.size


def test_cached_values_keep_the_rules_of_their_field() -> None:
    """A string that is right for one field is wrong for the other; the caches of values are shared by all fields."""
    fields = [(b"x", b"/a b"), (b"y", b"")]
    for _ in range(2):
        reader = HeadReader(LIMITS, websockets=False)
        for data in (block([*GET, *fields]), block([GET[0], (b":path", b"/a"), *GET[2:], *fields])):
            assert b"x: /a b\r\ny: \r\n" in reader.read_head(data, ended=True)[0]
        for path in (b"/a b", b"*", b""):
            assert isinstance(read(reader, block([GET[0], (b":path", path), *GET[2:], *fields])), str)


def test_encoded_string_and_equal_plain_bytes_are_two_values() -> None:
    encoded = encode_string(b"Bearer one")
    beginning, plain = keyed(b"/", b"")[:-1], bytes([encoded[0] ^ 0x80]) + encoded[1:]
    reader = HeadReader(LIMITS, websockets=False)
    reader.read_head(keyed(b"/", b"two"), ended=True)
    for data in (beginning + plain, beginning + encoded) * 2:
        assert read(reader, data) == read(HeadReader(LIMITS, websockets=False), data)
    assert b"authorization: Bearer one" in reader.read_head(beginning + encoded, ended=True)[0]


def test_invented_values_push_out_no_cached_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    cache = ValueCache(10, is_field_value)
    monkeypatch.setattr(open_head, "VALUES", cache)
    reader = HeadReader(LIMITS, websockets=False)
    for number in range(100):
        for key in (b"Bearer regular", b"Bearer %d" % number, b"k" * ENCODED_BYTES_MAX):
            reader.read_head(keyed(b"/%d" % number, key), ended=True)
    assert len(cache) < 10
    assert cache[b"\x0eBearer regular"] == b"Bearer regular"
    assert not cache[b"\x09Bearer 99"]
    assert all(len(string) <= ENCODED_BYTES_MAX for string in cache)


@pytest.mark.parametrize(
    "fields",
    [
        [(b"content-length", b"0")],
        [(b"content-length", b"1")],
        [(b"cookie", b"a"), (b"cookie", b"b")],
        [(b"cookie", b"a")],
        [(b"host", b"api.example.com")],
        [(b"x", b"one"), (b"x", b"one")],
        [(b"x", b"one"), (b"y", b"two"), (b"x", b"one")],
        [(b"te", b"trailers")],
        [(b"te", b"gzip")],
        [(b"x", b"x" * LIMITS.head), (b"y", b"one"), (b"z", b"two")],
        [(b"x", b"one"), (b"y", b"two")],
    ],
)
def test_fields_whose_meaning_depends_on_others_are_never_left_out(fields: Fields) -> None:
    reader = HeadReader(LIMITS, websockets=False)
    for values in (None, b"0", b"1", b"one", b"trailers", b"Trailers", b"other.example.com", b"one"):
        for at in range(len(fields)):
            changed = list(fields)
            if values is not None:
                changed[at] = fields[at][0], values
            data = block([*GET, *changed])
            assert read(reader, data) == read(HeadReader(LIMITS, websockets=False), data)


@pytest.mark.patches_methods
def test_only_path_key_and_length_of_another_upload_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = HeadReader(LIMITS, websockets=False)
    reader.read_head(keyed(b"/", b"Bearer one", behind=literal(b"content-length", b"10")), ended=False)
    monkeypatch.setattr(HpackDecoder, "_read_block", lambda *_: pytest.fail("The whole block is read"))
    for number in (b"2", b"0", b"007", b"10", b"2"):
        head = b"GET /a HTTP/1.1\r\nHost: a\r\nauthorization: Bearer two\r\ncontent-length: %b\r\n\r\n" % number
        data = keyed(b"/a", b"Bearer two", behind=literal(b"content-length", number))
        assert reader.read_head(data, ended=False) == (head, int(number))


@pytest.mark.parametrize("first", [b"0", b"10"])
@pytest.mark.parametrize("length", [b"0", b"1", b"", b" 1", b"+1", b"1,1", b"0x1", b"9" * 19, b"/"])
def test_length_is_checked_wherever_it_is_left_out(first: bytes, length: bytes) -> None:
    for first_ended in (first == b"0", False):
        reader = HeadReader(LIMITS, websockets=False)
        reader.read_head(keyed(b"/", b"k", behind=literal(b"content-length", first)), ended=first_ended)
        reader.read_head(keyed(b"/", b"k", behind=literal(b"x", b"/")), ended=first_ended)
        for ended in (True, False):
            for data in (
                keyed(b"/", b"k", behind=literal(b"content-length", length)),
                keyed(b"/", b"k", behind=literal(b"content-length", length) + literal(b"content-length", first)),
                keyed(b"/", length, behind=literal(b"content-length", length)),
            ):
                assert read(reader, data, ended=ended) == read(HeadReader(LIMITS, websockets=False), data, ended=ended)


def test_value_that_is_left_out_keeps_its_place_behind_an_equal_line() -> None:
    reader = HeadReader(LIMITS, websockets=False)
    reader.skip(literal(b"x", b"1", 0x40))
    for value in (b"1", b"2"):
        data = block(GET) + b"\xbe" + literal(b"x", value)
        assert reader.read_head(data, ended=True)[0] == GET_HEAD[:-2] + b"x: 1\r\nx: %b\r\n\r\n" % value


def test_long_block_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = HeadReader(LIMITS, websockets=False)
    long = keyed(b"/", b"k" * OPEN_BLOCK_BYTES_MAX)
    reader.read_head(long, ended=True)
    assert not reader._open_heads[True]
    reader.read_head(keyed(b"/", b"k"), ended=True)
    assert reader._open_heads[True]
    monkeypatch.setattr(head_reader, "complete_head", lambda *_: pytest.fail("It is read a second time"))
    assert reader.read_head(keyed(b"/a", b"k" * OPEN_BLOCK_BYTES_MAX), ended=True) != reader.read_head(long, ended=True)


def test_only_the_first_values_are_left_out() -> None:
    reader = HeadReader(LIMITS, websockets=False)
    for value in (b"1", b"2"):
        fields = [(b"x-%d" % number, value) for number in range(20)]
        expected = b"".join(b"%b: %b\r\n" % field for field in fields)
        assert reader.read_head(block([*GET, *fields]), ended=True)[0] == GET_HEAD[:-2] + expected + b"\r\n"
        assert len(reader._decoder.unindexed) == UNINDEXED_MAX


def test_shared_heads_are_bounded_in_number() -> None:
    reader = HeadReader(LIMITS, websockets=False)
    for number in range(OPEN_HEADS_MAX + 3):
        reader.read_head(block([*GET, (b"x-%d" % number, b"")]), ended=True)
    assert len(reader._open_heads[True]) == OPEN_HEADS_MAX
    reader.skip(literal(b"x", b"1", 0x40))
    assert reader._open_heads == ([], [])
    assert reader.stored_bytes == reader._decoder.size


def test_head_with_too_long_a_target_is_still_read() -> None:
    reader = HeadReader(HeadLimits(head=120), websockets=False)
    path = [GET[0], (b":path", b"/" + b"p" * 200), *GET[2:]]
    assert reader.read_head(block(path), ended=True)[0].startswith(b"GET /" + b"p" * 200)
