"""An encoder of valid but unusual field blocks, and fields to encode.

It repeats blocks with their insertions, evicts an entry before it names it, and resizes the table. So an equal byte has
another meaning in the next block, and a faulty memory of blocks would show.
"""

import random

from edgeproxy.edge.http2 import answer
from edgeproxy.edge.http2.appendices import STATIC
from tests.edge.http2.peer import Fields, integer

NAMES = [b"accept", b"x-a", b"cookie", b"te", b"host", b"Bad", b"x" * 40]
VALUES = [b"", b"a", b"trailers", b"api.example.com", b"x" * 300, b"sp ace", b" bad", b"q" * 2000]


class OddEncoder:
    """Writes valid blocks, in ways that no sane encoder would."""

    def __init__(self, draw: random.Random, inserted: float = 0.7) -> None:
        """`inserted`: the share of literals that are inserted into the table."""
        self.draw, self.inserted = draw, inserted
        self.table: Fields = []
        self.limit = 4096

    def string(self, text: bytes) -> bytes:
        return answer.encode_string(text) if self.draw.random() < 0.5 else integer(len(text), 7) + text

    def insert(self, field: tuple[bytes, bytes]) -> None:
        self.table.insert(0, field)
        self.evict()

    def evict(self) -> None:
        while sum(len(name) + len(value) + 32 for name, value in self.table) > self.limit:
            self.table.pop()

    def encode(self, fields: Fields) -> bytes:
        draw, encoded = self.draw, b""
        if draw.random() < 0.05:
            self.limit = draw.choice((0, 100, 1000, 4096))
            self.evict()
            encoded += integer(self.limit, 5, 0x20)
        for field in fields:
            every = [*STATIC, *self.table]
            indexes = [index for index, each in enumerate(every, 1) if each == field]
            if indexes and draw.random() < 0.9:
                encoded += integer(draw.choice(indexes), 7, 0x80)
                continue
            names = [index for index, each in enumerate(every, 1) if each[0] == field[0]]
            index = draw.choice(names) if names and draw.random() < 0.8 else 0
            name = b"" if index else self.string(field[0])
            if draw.random() < self.inserted:
                encoded += integer(index, 6, 0x40) + name + self.string(field[1])
                self.insert(field)
            else:
                encoded += integer(index, 4, draw.choice((0, 0x10))) + name + self.string(field[1])
        return encoded


def draw_fields(draw: random.Random) -> Fields:
    fields = [(b":method", b"GET"), (b":path", draw.choice((b"/", b"/a"))), (b":scheme", b"https")]
    fields += [(draw.choice(NAMES[:5]), draw.choice(VALUES[:5])) for _ in range(draw.randrange(5))]
    return [*fields, (draw.choice(NAMES), draw.choice(VALUES))] if draw.random() < 0.2 else fields
