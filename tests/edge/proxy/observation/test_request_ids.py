"""Request ids and trace contexts."""

import re
import uuid

import pytest

from edgeproxy.edge.proxy.observation.request_ids import BEGUN as FORM
from edgeproxy.edge.proxy.observation.request_ids import (
    IDS_PER_DRAW,
    SPAN_ID,
    TAIL,
    TRACE_ID,
    IdGenerator,
    format_trace,
)

BEGUN = re.compile(rb"\r\ntraceparent: 00-([0-9a-f]{32})-([0-9a-f]{16})-01\r\n\r\n")
NOW = 1_790_000_000.1235


class Scripted:
    """Randomness that a test decides: draws in turn, then repeats the last."""

    def __init__(self, *draws: bytes) -> None:
        self._draws = list(draws)
        self.asked: list[int] = []

    def __call__(self, n: int) -> bytes:
        self.asked.append(n)
        draw = self._draws.pop(0) if len(self._draws) > 1 else self._draws[0]
        return (draw * (n // len(draw) + 1))[:n]


def test_a_request_id_is_a_uuid_of_version_7_that_begins_with_the_millisecond() -> None:
    """RFC 9562 section 5.7: 48 bits of Unix milliseconds, version 7, variant 10."""
    id_generator = IdGenerator()
    for _ in range(2 * IDS_PER_DRAW):
        rid, _ = id_generator.create_ids(NOW)
        parsed = uuid.UUID(rid.decode())
        assert str(parsed).encode() == rid, "lower case, with dashes"
        assert parsed.version == 7
        assert parsed.variant == uuid.RFC_4122
        assert parsed.int >> 80 == 1_790_000_000_123


def test_request_ids_are_unique_version_7_uuids() -> None:
    id_generator = IdGenerator()
    drawn = [id_generator.create_request_id(NOW) for _ in range(4 * IDS_PER_DRAW)] + [
        id_generator.create_ids(NOW)[0] for _ in range(IDS_PER_DRAW)
    ]
    assert len(set(drawn)) == len(drawn)
    for rid in drawn:
        parsed = uuid.UUID(rid.decode())
        assert (parsed.version, parsed.variant, parsed.int >> 80) == (7, uuid.RFC_4122, 1_790_000_000_123)


def test_ids_of_later_milliseconds_sort_after_earlier_ones() -> None:
    id_generator = IdGenerator()
    drawn = [id_generator.create_ids(NOW + step / 1000)[0] for step in range(1000)]
    assert drawn == sorted(drawn)


def test_times_before_the_digits_grow_keep_their_leading_zeros() -> None:
    rid, _ = IdGenerator().create_ids(1.5)
    assert rid.startswith(b"00000000-05dc-7")


def test_no_two_requests_share_an_id_a_trace_or_a_span() -> None:
    id_generator = IdGenerator()
    n = 20 * IDS_PER_DRAW
    drawn = [id_generator.create_ids(NOW) for _ in range(n)]
    assert len({rid for rid, _ in drawn}) == n
    assert len({begun for _, begun in drawn}) == n
    assert len({begun[SPAN_ID] for _, begun in drawn}) == n


def test_a_trace_begun_here_is_sampled_and_ends_the_head() -> None:
    """W3C Trace Context section 3.2: version 00, trace-id, parent-id, flags."""
    _, begun = IdGenerator().create_ids(NOW)
    match = BEGUN.fullmatch(begun)
    assert match is not None
    assert match[2] == begun[SPAN_ID]
    assert match[1] != b"0" * 32
    assert match[2] != b"0" * 16


def test_a_continued_trace_keeps_its_id_and_flags_and_gets_a_span_of_ours() -> None:
    closing = format_trace(b"0af7651916cd43dd8448eb211c80319c", b"00f067aa0ba902b7", b"00")
    assert closing == b"\r\ntraceparent: 00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-00\r\n\r\n"


def test_ids_follow_from_the_randomness_alone() -> None:
    one, other = (IdGenerator(Scripted(bytes(range(256)))) for _ in range(2))
    assert [one.create_ids(NOW) for _ in range(IDS_PER_DRAW)] == [other.create_ids(NOW) for _ in range(IDS_PER_DRAW)]


def test_randomness_is_drawn_once_for_a_batch() -> None:
    randomness = Scripted(bytes(range(1, 256)))
    id_generator = IdGenerator(randomness)
    for _ in range(IDS_PER_DRAW):
        id_generator.create_ids(NOW)
    assert randomness.asked == [IDS_PER_DRAW * len(form) // 2 for form in (FORM, TAIL)]
    id_generator.create_ids(NOW)
    assert len(randomness.asked) == 4


@pytest.mark.parametrize("zero", [TRACE_ID, SPAN_ID], ids=["trace", "span"])
def test_a_trace_or_span_of_zeros_is_never_given(zero: slice) -> None:
    """W3C Trace Context sections 3.2.2.3 and 3.2.2.4: all zeros is invalid."""
    bad = bytearray(b"7" * len(FORM))
    bad[zero] = b"0" * (zero.stop - zero.start)
    good = b"5" * len(FORM)
    draw = bytes.fromhex((bad + good).decode())
    id_generator = IdGenerator(Scripted(draw))
    for _ in range(IDS_PER_DRAW // 2):
        assert b"0" * 16 not in id_generator.create_ids(NOW)[1]
