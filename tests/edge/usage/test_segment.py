import random

import pytest
import zstandard
from google_crc32c import extend
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.edge.usage.segment import BODY, HEAD, LENGTH, RECORD, Damage, Mark, Record, pack_record, parse_records

BODIES = [b'{"batch":%d}' % number * (number + 1) for number in range(6)]
MARKS = tuple(Mark(1 + row % 2, row, row, 1 << row) for row in range(20))


def content() -> tuple[bytes, list[int]]:
    """Return a segment of six records, and the offsets of their boundaries."""
    written, places = HEAD, [len(HEAD)]
    for body in BODIES:
        written += pack_record(body, MARKS)
        places.append(len(written))
    return written, places


def read(written: bytes) -> tuple[list[bytes], list[Damage]]:
    found = list(parse_records(written))
    return [record.body for record in found if isinstance(record, Record)], [
        record for record in found if isinstance(record, Damage)
    ]


@given(
    st.binary(max_size=200),
    st.lists(st.tuples(*[st.integers(0, (1 << 64) - 1)] * 4), max_size=20, unique_by=lambda mark: mark[:2]),
    st.integers(0, 1 << 65),
)
def test_any_body_and_marks_are_read_as_they_were(
    body: bytes, marks: list[tuple[int, int, int, int]], counted: int
) -> None:
    (found,) = parse_records(HEAD + pack_record(body, tuple(Mark(*mark) for mark in marks), counted))
    assert isinstance(found, Record)
    assert found.body == body
    assert sorted(found.marks) == sorted(marks)
    assert found.counted == counted % (1 << 64)


def test_records_are_read_from_any_record_start() -> None:
    written, places = content()
    whole = list(parse_records(written))
    for number, start in enumerate(places):
        assert list(parse_records(written[start:], start)) == whole[number:]
    flipped = bytearray(written)
    flipped[places[2] + 20] ^= 1
    (damage,) = [
        record for record in parse_records(bytes(flipped[places[1] :]), places[1]) if isinstance(record, Damage)
    ]
    assert (damage.offset, damage.until) == (places[2], places[3])
    assert all(isinstance(record, Record) and not record.marks for record in parse_records(written, marked=False))


def test_a_segment_cut_anywhere_has_the_records_before_the_cut() -> None:
    written, places = content()
    for size in range(len(written)):
        bodies, damage = read(written[:size])
        whole = sum(end <= size for end in places[1:])
        assert bodies == BODIES[:whole]
        if size and size not in places:
            ((offset, until, _),) = damage
            assert (offset, until) == (places[whole] if size > len(HEAD) else 0, size)


def test_flipped_bit_damages_one_record_and_is_reported(seed: int) -> None:
    written, places = content()
    chance = random.Random(seed)
    for place in range(len(HEAD), len(written)):
        flipped = bytearray(written)
        flipped[place] ^= 1 << chance.randrange(8)
        bodies, damage = read(bytes(flipped))
        hit = sum(end <= place for end in places[1:])
        assert bodies == BODIES[:hit] + BODIES[hit + 1 :]
        assert [(one.offset, one.until) for one in damage] == [(places[hit], places[hit + 1])]


@pytest.mark.parametrize("junk", [bytes(4096), b"\xff" * 4096, b"\x28\xb5\x2f\xfd" * 99])
def test_junk_is_no_record(junk: bytes) -> None:
    written, places = content()
    bodies, damage = read(written + junk)
    assert bodies == BODIES
    assert [(one.offset, one.until) for one in damage] == [(places[-1], len(written) + len(junk))]


@pytest.mark.parametrize(
    "payload",
    [
        b"no frame",
        zstandard.compress(b""),
        zstandard.compress(BODY.pack(2, 0) + b"{}" + b"[[1]]"),
        zstandard.compress(BODY.pack(2, 0) + b"{}" + b"[[1,[1],[],[1]]]"),
        zstandard.compress(BODY.pack(2, 0) + b"{}" + b"nothing"),
        zstandard.compress(bytes(65 << 20)),
    ],
)
def test_a_record_of_something_else_is_damage(payload: bytes) -> None:
    length = len(payload)
    checked = extend(extend(0, LENGTH.pack(length)), payload)
    written = HEAD + RECORD.pack(length, checked) + payload + pack_record(b"next", ())
    bodies, damage = read(written)
    assert bodies == [b"next"]
    assert [(one.offset, one.until) for one in damage] == [(len(HEAD), len(HEAD) + RECORD.size + length)]
