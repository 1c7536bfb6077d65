"""The memory of heads gives the results of the library hpack, which has no memory.

The encoder writes unusual blocks (odd_encoder.py).
"""

import random

import hpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.edge.http1.grammar import LIMITS, HeadLimits
from edgeproxy.edge.http2.errors import Http2StreamError
from edgeproxy.edge.http2.head_reader import HEADS_BYTES_MAX, HEADS_MAX, HeadReader
from edgeproxy.edge.http2.lines import format_line
from edgeproxy.edge.http2.request import format_head
from tests.edge.http2.fuzz_run import fuzz_for_long
from tests.edge.http2.odd_encoder import OddEncoder, draw_fields
from tests.edge.http2.peer import GET, GET_HEAD, block, literal


def read(reader: HeadReader, data: bytes) -> tuple[bytes, int] | str:
    try:
        return reader.read_head(data, ended=True)
    except Http2StreamError as error:
        return error.detail


def compare_readers(draw: random.Random) -> int:
    """Read some blocks with the memory, and with a library that has none; return how many."""
    # Half of the runs use short heads that differ in one field: after each insertion, one byte names another field.
    usual = [draw_fields(draw) for _ in range(4)]
    if draw.random() < 0.5:
        usual = [
            [*[(b":method", b"GET"), (b":path", b"/"), (b":scheme", b"https")], (b"x-a", b"%d" % i)] for i in range(6)
        ]
    reader, encoder, other = HeadReader(LIMITS, websockets=False), OddEncoder(draw), hpack.Decoder()
    encoder_blocks: list[bytes] = []
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
            expected = format_head([format_line(*field) for field in fields], ended=True)
        except Http2StreamError as error:
            expected = error.detail
        assert read(reader, data) == expected
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
        reader.read_head(block([*GET, (b"x", b"%d" % number)]), ended=True)
    assert reader.stored_bytes < 4 * len(GET_HEAD)
    for number in range(20):
        reader.read_head(block([*GET, (b"x", b"%04000d" % number)]), ended=True)
    assert reader.stored_bytes <= HEADS_BYTES_MAX
    before = reader.stored_bytes
    reader.read_head(block([*GET, (b"x", b"y" * 20_000)]), ended=True)
    assert reader.stored_bytes <= before


def test_head_with_too_long_a_target_is_still_read() -> None:
    reader = HeadReader(HeadLimits(head=120), websockets=False)
    path = [GET[0], (b":path", b"/" + b"p" * 200), *GET[2:]]
    assert reader.read_head(block(path), ended=True)[0].startswith(b"GET /" + b"p" * 200)
