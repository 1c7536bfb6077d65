from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.edge.counters import layout as at
from edgeproxy.edge.counters.layout import Layout
from edgeproxy.edge.counters.rows import TableBusyError, TableFullError
from edgeproxy.edge.counters.tallies import COUNTER, GAUGE, TallyTable, names, tally_key
from tests.support.tables import METRICS, USAGE, WHOLE_KEYS, make, opened, tallies

BOTH_ORDERS = True

PART = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=200)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return make(tmp_path, METRICS)


@pytest.fixture
def table(path: Path) -> TallyTable:
    return tallies(path, 0)


@given(st.lists(PART, min_size=3, max_size=3), st.lists(PART, min_size=3, max_size=3))
def test_keys_of_any_names_fit_and_differ_where_the_names_do(some: list[str], others: list[str]) -> None:
    one, other = tally_key(*some), tally_key(*others)
    assert len(one) <= at.TALLY_KEY_BYTES
    assert (one == other) == (some == others)
    assert len(names(one)) == 3


def test_tally_key_truncates_only_its_longest_name() -> None:
    customer, meter, route = names(tally_key("acme", "requests", "/" + "a" * 300))
    assert (customer, meter) == ("acme", "requests")
    assert route.startswith("/" + "a" * 100)
    assert "~" in route
    assert len(tally_key(customer, meter, route)) == at.TALLY_KEY_BYTES


def test_gauges_are_summed_over_live_columns_only(table: TallyTable, path: Path) -> None:
    other = tallies(path, 1)
    table.words[table.own(b"connections", GAUGE)] = 5
    other.words[other.own(b"connections", GAUGE)] = 7
    reader = tallies(path)
    assert [words[0] for _, _, words in reader.totals(frozenset({0, 1}))] == [12]
    assert [words[0] for _, _, words in reader.totals(frozenset({1}))] == [7]
    assert [words[0] for _, _, words in reader.totals(frozenset())] == [0]
    assert list(reader.totals()) == []


def test_successor_clears_gauges_and_keeps_counters_of_a_column(table: TallyTable, path: Path) -> None:
    table.words[table.own(b"connections", GAUGE)] = 5
    table.words[table.own(b"requests", COUNTER)] = 6
    successor = tallies(path, 0)
    successor.clear_gauges()
    assert successor.words[successor.own(b"connections", GAUGE)] == 0
    assert successor.words[successor.own(b"requests", COUNTER)] == 6


def test_a_full_table_has_no_row_for_another_key(table: TallyTable) -> None:
    for number in range(METRICS.rows):
        table.own(b"%d" % number, COUNTER)
    with pytest.raises(TableFullError):
        table.own(b"one more", COUNTER)
    table.own(b"3", COUNTER)


def test_a_key_without_a_free_slot_near_it_has_no_row(table: TallyTable) -> None:
    table.words[at.HEADER_WORDS : table.layout.first_row] = memoryview(
        b"\xff" * 8 * (table.layout.first_row - at.HEADER_WORDS)
    ).cast("Q")
    with pytest.raises(TableFullError):
        table.own(b"requests", COUNTER)


def test_a_claim_waits_for_the_flock_but_not_for_ever(
    table: TallyTable, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, refusals = table.file.lock, [False, False]
    monkeypatch.setattr(table.file, "lock", lambda: refusals.pop() if refusals else lock())
    table.own(b"known", COUNTER)
    assert refusals == []
    other = opened(path)
    assert other.lock()
    table.own(b"known", COUNTER)
    with pytest.raises(TableBusyError):
        table.own(b"requests", COUNTER)
    other.unlock()
    table.own(b"requests", COUNTER)


def test_concurrent_claims_of_one_key_share_a_row(
    table: TallyTable, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tallies(path, 1)
    lock = table.file.lock

    def late() -> bool:
        other.own(b"requests", COUNTER)
        return lock()

    monkeypatch.setattr(table.file, "lock", late)
    table.own(b"requests", COUNTER)
    assert table.rows_in_use == 1


def test_kill_during_a_claim_leaves_no_count(table: TallyTable) -> None:
    table.words[at.HIGH] = 1
    assert list(table.totals()) == []
    table.own(b"requests", COUNTER)
    assert [key for _, key, _ in table.totals()] == [b"requests"]


def test_rows_that_have_keys_are_not_handed_out_again_after_a_power_cut(table: TallyTable) -> None:
    for number, key in enumerate((b"one", b"two", b"three", b"four")):
        table.words[table.own(key, COUNTER)] = number + 1
    # Neither how many rows were handed out is on the disk, nor the second row, nor what leads to the fourth.
    table.words[at.HIGH] = 1
    second = table.layout.first_row + METRICS.row_words
    table.words[second : second + METRICS.row_words] = memoryview(bytes(8 * METRICS.row_words)).cast("Q")
    table.index.remove(table.index.hash(b"four"), 3)
    table.recover()
    assert table.rows_in_use == 4
    table.words[table.own(b"four", COUNTER)] += 10
    assert table.words[table.own(b"two", COUNTER)] == 0
    # Both are in new rows: no index entry led to one key's row, and the other key's row was empty.
    assert table.rows_in_use == 6
    totals: dict[bytes, int] = {}
    for _, key, words in table.totals():
        totals[key] = totals.get(key, 0) + words[0]
    assert totals == {b"one": 1, b"three": 3, b"four": 14, b"two": 0}


def test_a_process_without_a_column_only_reads(path: Path) -> None:
    reader = tallies(path)
    with pytest.raises(ValueError, match="without a column"):
        reader.own(b"requests", COUNTER)
    with pytest.raises(ValueError, match="without a column"):
        reader.clear_gauges()
    with pytest.raises(ValueError, match="without a column"):
        reader.columns_of(1000)


def test_a_key_that_is_too_long_is_refused(table: TallyTable) -> None:
    with pytest.raises(ValueError, match="233 bytes long, and 232 is the most"):
        table.own(b"k" * 233, COUNTER)
    table.own(b"k" * 232, COUNTER)
    assert [key for _, key, _ in table.totals()] == [b"k" * 232]


def test_usage_has_a_word_for_each_column(tmp_path: Path) -> None:
    table = tallies(make(tmp_path, USAGE), 3)
    table.words[table.own(b"acme\0requests\0v1", COUNTER)] = 9
    assert list(table.totals()) == [(COUNTER, b"acme\0requests\0v1", [9])]


def test_unsealed_rows_have_a_total_above_their_mark(tmp_path: Path) -> None:
    path = make(tmp_path, USAGE)
    one, two, reader = tallies(path, 0), tallies(path, 1), tallies(path)
    for number, key in enumerate((b"a", b"b", b"c")):
        one.words[one.own(key, COUNTER)] = 10 * number
        two.words[two.own(key, COUNTER)] = number
    assert list(reader.list_unsealed()) == [(1, b"b", 11, 0), (2, b"c", 22, 0)]
    reader.mark(1, 11)
    reader.mark(2, 20)
    assert list(reader.list_unsealed()) == [(2, b"c", 22, 20)]
    assert list(reader.marks()) == [(b"a", 0), (b"b", 11), (b"c", 20)]
    reader.mark(2, 19)
    assert dict(reader.marks())[b"c"] == 20
    # Totals do not include marks.
    assert [words for _, _, words in reader.totals()] == [[0], [11], [22]]


def test_a_row_that_is_being_claimed_has_neither_grown_nor_a_mark(tmp_path: Path) -> None:
    table = tallies(make(tmp_path, USAGE), 0)
    word = table.own(b"a", COUNTER)
    table.words[word] = 5
    table.mark(0, 3)
    table.words[word - table.layout.tallies + at.TALLY_HASH] = 0
    assert list(table.list_unsealed()) == list(table.marks()) == []
    assert table.number(b"a", 0) == 0


@pytest.mark.parametrize("layout", [USAGE, WHOLE_KEYS], ids=["two parts", "one part"])
def test_key_of_each_length_has_its_own_count(tmp_path: Path, layout: Layout) -> None:
    path = make(tmp_path, layout)
    keys = [b"k" * length for length in (0, 1, 63, 64, 65, 231, at.TALLY_KEY_BYTES)]
    for number, key in enumerate(keys):
        table = tallies(path, number % 4)
        table.words[table.own(key, COUNTER)] = number + 1
        table.mark(number, number)
    reader = tallies(path)
    assert [(key, words) for _, key, words in reader.totals()] == [(key, [n + 1]) for n, key in enumerate(keys)]
    assert list(reader.list_unsealed()) == [(n, key, n + 1, n) for n, key in enumerate(keys)]
    assert [reader.number(key) for key in keys] == list(range(len(keys)))
    with pytest.raises(ValueError, match="the key is 233 bytes long"):
        table.own(b"k" * (at.TALLY_KEY_BYTES + 1), COUNTER)


def test_row_whose_key_lost_its_rest_in_a_power_cut_counts_for_no_key(tmp_path: Path) -> None:
    table = tallies(make(tmp_path, USAGE), 0)
    for key in (b"short", b"long" * 20):
        table.words[table.own(key, COUNTER)] = 5
    far = (table.layout.first_row + table.layout.far) * at.WORD
    table.file.bytes[far : table.layout.size] = bytes(table.layout.size - far)
    table.recover()
    assert [(key, words) for _, key, words in table.totals()] == [(b"short", [5])]
    assert table.words[table.own(b"long" * 20, COUNTER)] == 0


def test_tally_row_is_found_despite_a_wrong_hint(tmp_path: Path) -> None:
    table = tallies(make(tmp_path, USAGE), 0)
    for key in (b"a", b"b"):
        table.own(key, COUNTER)
    assert [table.number(b"b", likely) for likely in (0, 1, 7)] == [1, 1, 1]
    assert table.number(b"c") is None


def test_restore_total_adds_the_missing_part(tmp_path: Path) -> None:
    path = make(tmp_path, USAGE)
    one, two = tallies(path, 0), tallies(path, 1)
    one.words[one.own(b"a", COUNTER)] = 7
    two.restore_total(0, 10)
    assert (two.total(0), two.words[two.own(b"a", COUNTER)]) == (10, 3)
    two.restore_total(0, 9)
    assert two.total(0) == 10
    with pytest.raises(ValueError, match="adds to nothing"):
        tallies(path).restore_total(0, 11)
