from hypothesis import given
from hypothesis import strategies as st

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
