"""All stories of http2jp/hpack-test-case, written by fourteen encoders: each block decodes to its fields."""

import json
import lzma
from collections.abc import Iterator

from edgeproxy.edge.http2.hpack import HpackDecoder
from edgeproxy.edge.http2.lines import Line, format_line
from tests.edge.http2.hpack_test_case.pack import CASES


def read_lines(fields: str) -> list[Line]:
    return [format_line(name.encode(), encode_value(value)) for name, value in json.loads(fields)]


def encode_value(value: str) -> bytes:
    """The bytes of a value. Those of the recorded traffic stand in the JSON as Latin-1 or UTF-8."""
    return value.encode("latin-1" if all(ord(each) < 256 for each in value) else "utf-8")


def load_stories() -> Iterator[tuple[str, list[tuple[bytes, list[Line]]]]]:
    """Yield the name of each connection, and its blocks with their fields."""
    lines = iter(lzma.decompress(CASES.read_bytes()).decode().split("\n"))
    field_lists = [read_lines(next(lines)) for _ in range(int(next(lines)))]
    for line in lines:
        name, count = line.split()
        cases = [next(lines).split() for _ in range(int(count))]
        yield name, [(bytes.fromhex(block), field_lists[int(number)]) for number, block in cases]


def test_every_block_is_read_as_it_should_be() -> None:
    read = 0
    for name, cases in load_stories():
        decoder = HpackDecoder(1000, 1 << 20)
        for block, expected in cases:
            assert decoder.decode(block) == expected, name
            read += 1
    assert read == 47_142
