from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.edge.counters import layout as at
from edgeproxy.edge.counters.cells import (
    CELL_US_MIN,
    CELLS_AHEAD,
    MASK,
    bounds,
    cell_number,
    pack,
    per_second,
    unpack,
    width_us,
)
from edgeproxy.edge.counters.layout import Layout
from edgeproxy.edge.counters.setup import layouts

WORKERS = (1, 2, 3, 8, 64)


@pytest.mark.parametrize("workers", WORKERS)
def test_the_parts_of_a_file_do_not_overlap(workers: int) -> None:
    for layout in layouts(workers, 200_000, 1000):
        assert layout.columns == 2 * workers
        assert layout.slots >= layout.rows / at.LOAD_FACTOR
        assert layout.first_row >= at.HEADER_WORDS + layout.slots + at.PROBES
        assert layout.size >= (layout.first_row + layout.rows * layout.row_words) * at.WORD
        assert layout.first_row % at.HEADER_WORDS == 0
        assert layout.row_words % 8 == 0


def list_ring_places(layout: Layout) -> list[int]:
    """Return the first words of all rings of all rows, in order."""
    foreign, words = layout.foreign
    rings = [layout.first_rings + layout.ring_at(column) for column in range(layout.columns)]
    return sorted(
        place + number * stride
        for number in range(layout.rows)
        for place, stride in [(foreign, words), *((ring, layout.rings_words) for ring in rings)]
    )


@pytest.mark.parametrize("workers", WORKERS)
def test_the_parts_of_a_row_do_not_overlap(workers: int) -> None:
    customers, addresses, quotas, usage, metrics, connections, end_users = layouts(workers, 100, 100)
    for layout in (customers, addresses, quotas, end_users):
        rings = list_ring_places(layout)
        assert all(after - before >= layout.ring for before, after in pairwise(rings))
        assert layout.list_extents(0, layout.rows)[-1][1] >= (rings[-1] + layout.ring) * at.WORD
        if layout is not quotas:
            assert layout.ring >= layout.cells + 3
            near, far = range(workers), (-1, *range(workers, 2 * workers))
            assert [layout.head(column) for column in near] == [layout.heads + layout.width * n for n in near]
            assert (layout.width, layout.alarm) == (at.LONE_HEAD_WORDS, layout.heads + layout.width * workers)
            assert layout.alarm < layout.row_words
            assert [layout.head(column) for column in far] == [
                layout.far_heads + layout.width * n for n in range(1 + workers)
            ]
            assert layout.width * len(far) <= layout.row_words
            assert rings[0] == layout.first_rings >= layout.first_row + layout.rows * layout.row_words
            extents = layout.list_extents(0, layout.rows)
            assert [end for _, end in extents[:-1]] == [start for start, _ in extents[1:]]
            assert extents[-2][0] == layout.first_rest * at.WORD >= (rings[-1] + layout.ring) * at.WORD
            far_heads = layout.first_row + layout.far_heads
            assert extents[-1][0] == far_heads * at.WORD
            assert far_heads >= layout.first_rest + layout.rows * at.REST_WORDS
            assert layout.size >= (far_heads + layout.rows * layout.row_words) * at.WORD
            assert (layout.key_words + at.REST_WORDS) * at.WORD == at.KEY_BYTES
    for layout in (usage, metrics, connections):
        assert layout.tallies + layout.columns * layout.width <= layout.row_words
        assert layout.size >= (layout.first_row + layout.rows * layout.row_words) * at.WORD
    assert (metrics.tallies - 1 - at.TALLY_KEY) * at.WORD == at.TALLY_KEY_BYTES
    assert (usage.tallies - 1 - at.TALLY_KEY + at.KEY_REST_WORDS) * at.WORD == at.TALLY_KEY_BYTES
    assert usage.size == (usage.first_row + usage.far) * at.WORD + -(-usage.rows * at.KEY_REST_WORDS * 8 // 4096) * 4096


def test_row_sizes_with_two_workers_are_as_documented() -> None:
    customers, addresses, quotas, *_ = layouts(2, 200_000, 200_000)
    assert (customers.row_words * at.WORD, customers.row_bytes) == (192, 1704)
    assert (addresses.row_words * at.WORD, addresses.row_bytes) == (192, 1064)
    assert quotas.row_bytes == 448
    assert layouts(1, 10, 10)[0].row_words * at.WORD == 128


@pytest.mark.parametrize("workers", WORKERS)
def test_a_row_that_other_hosts_share_has_its_alarm_in_a_head(workers: int) -> None:
    for layout in layouts(workers, 100, 100, hub=True)[:2]:
        assert layout.width == at.HEAD_WORDS
        assert layout.alarm == layout.head(-1) + at.ALARM
        assert all(b - a >= layout.ring for a, b in pairwise(list_ring_places(layout)))


@pytest.mark.parametrize(("ring", "columns", "words"), [(32, 4, 192), (16, 4, 112), (32, 16, 624)])
def test_rows_of_the_former_format_are_as_long_as_they_were(ring: int, columns: int, words: int) -> None:
    assert Layout("customers", 10, columns, ring, 28).row_words == words


def test_the_words_of_a_head_do_not_overlap() -> None:
    words = (at.CUM, at.LEVEL, at.SEEN_CUM, at.UNTIL, at.WANT, at.USED, at.GIVEN)
    assert sorted(words) == list(range(at.HEAD_WORDS))
    assert at.GAUGE == at.PERIOD == at.LEVEL


def test_names_of_header_words_do_not_overlap() -> None:
    words = (
        *(at.MAGIC, at.VERSION, at.KIND, at.GENERATION, at.ROWS, at.COLUMNS, at.RING, at.CELLS, at.WIDTH),
        *(at.INSTANCE, at.BOOT, at.SEED, at.SEED + 1, at.IN_USE, at.HIGH, at.FREE, at.PENDING, at.DAMAGED),
        *(at.CHANGES, at.COLUMNS_VERSION, at.ZERO),
        *range(at.USED_COLUMNS, at.USED_COLUMNS + at.BITMAP_WORDS),
        *range(at.ACTIVE_COLUMNS, at.ACTIVE_COLUMNS + at.BITMAP_WORDS),
        *range(at.SEEN, at.SEEN + at.COLUMNS_MAX),
    )
    assert len(set(words)) == len(words)
    assert max(words) < at.HEADER_WORDS


# ---- cells


@given(st.floats(0.28, 31 * 86400), st.sampled_from((28, 13)))
def test_cells_span_the_window_and_hardly_more(window: float, cells: int) -> None:
    width = width_us(window, cells)
    assert cells * width >= round(window * 1e6)
    assert (cells * (width - 1) < round(window * 1e6)) or width == CELL_US_MIN


def test_no_cell_is_shorter_than_ten_milliseconds() -> None:
    assert width_us(0.001, 28) == CELL_US_MIN


@given(st.floats(0, 7e8), st.integers(CELL_US_MIN, 10**12))
def test_the_number_of_a_cell_is_the_one_that_hot_code_computes(now: float, width: int) -> None:
    assert cell_number(now, width) == int(now * per_second(width))


def test_thirty_six_bits_number_the_shortest_cells_until_2046() -> None:
    assert cell_number(21 * 365.25 * 86400, CELL_US_MIN) < 1 << 36


@given(st.integers(0, (1 << 36) - 1), st.integers(0, MASK))
def test_a_word_holds_a_cell_and_a_count(cell: int, count: int) -> None:
    assert unpack(pack(cell, count)) == (cell, count)
    assert pack(cell, count) < 1 << 64


def test_a_count_saturates() -> None:
    assert unpack(pack(5, MASK + 1)) == (5, MASK)


@given(st.integers(0, 1 << 35), st.integers(-40, 10), st.integers(1, MASK))
def test_counted_words_are_28_cells_back_to_two_ahead(cell: int, away: int, count: int) -> None:
    low, high = bounds(cell, 28)
    other = cell + away
    if other >= 0:
        assert (low <= pack(other, count) < high) == (-28 <= away <= CELLS_AHEAD)


def test_a_word_never_written_does_not_count_at_the_beginning_of_time() -> None:
    low, _ = bounds(3, 28)
    assert low > 0
