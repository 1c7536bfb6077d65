import random
import threading
from pathlib import Path
from typing import Any

import pytest

from edgeproxy.edge.counters import layout as at
from edgeproxy.edge.counters.cells import CELL_US_MIN
from edgeproxy.edge.counters.row_key import DIGESTED, HAS_FOREIGN, HAS_GAUGES, RowKey
from edgeproxy.edge.counters.row_repair import repair, repair_if_free
from edgeproxy.edge.counters.rows import (
    FLOCK_RETRY_SECONDS,
    FLOCK_WAIT_SECONDS,
    LimitTable,
    TableBusyError,
    TableFullError,
)
from tests.support.resident_memory import measure_resident_bytes
from tests.support.tables import (
    CUSTOMERS,
    WIDTH,
    Cut,
    Killed,
    claim,
    limits,
    list_ring_words,
    make,
    number_of,
    taken,
    write_cell,
    write_head,
)

BOTH_ORDERS = True


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return make(tmp_path, CUSTOMERS)


@pytest.fixture
def table(path: Path) -> LimitTable:
    return limits(path, 0)


def test_a_key_has_no_row_until_its_first_find(table: LimitTable) -> None:
    key = table.make_key(b"acme")
    assert table.peek(key) is None
    row, generation, fresh = table.find(key, WIDTH, 1000.5)
    assert fresh
    assert generation == 2
    assert table.peek(key) == row
    assert table.find(key, WIDTH, 2000.0) == (row, generation, False)
    assert table.words[row + at.ROW_WIDTH] == WIDTH
    assert table.words[row + at.ROW_BORN] == 1_000_500
    assert table.rows_in_use == 1
    assert list(table.rows()) == [row]


@pytest.mark.parametrize("length", [0, 1, 24, 25, 63, 64])
def test_a_short_key_is_stored_whole(table: LimitTable, length: int) -> None:
    claim(table, b"other")
    key = bytes(range(length))
    row = claim(table, key)
    start = (row + at.ROW_KEY) * at.WORD
    assert bytes(table.file.bytes[start : start + 24]) == key[:24].ljust(24, b"\0")
    start = (table.layout.first_rest + at.REST_WORDS) * at.WORD
    assert bytes(table.file.bytes[start : start + 40]) == key[24:].ljust(40, b"\0")
    assert (table.words[row + at.ROW_STATE], table.stored_key(row)) == (length, key)


def test_keys_with_equal_beginnings_are_different(path: Path) -> None:
    # A row has the beginning of a key, and its rest lies elsewhere.
    table, other = limits(path, 0), limits(path, 1)
    keys = [b"k" * 24 + rest for rest in (b"", b"0" * 40, b"1" * 40, b"1")]
    rows = [claim(table, key) for key in keys]
    assert len({*rows}) == len(rows)
    assert [claim(other, key) for key in keys] == rows
    table.free(number_of(table, rows[1]))
    again = b"k" * 24 + b"2" * 40
    assert claim(other, again) == rows[1]
    assert table.stored_key(rows[1]) == again
    assert table.peek(table.make_key(keys[1])) is None
    assert [table.stored_key(row) for row in rows[2:]] == keys[2:]


def test_a_long_key_is_stored_as_a_digest(table: LimitTable) -> None:
    row = claim(table, b"k" * 65)
    assert table.words[row + at.ROW_STATE] == 16 | DIGESTED
    assert claim(table, b"k" * 65) == row
    assert claim(table, b"k" * 66) != row


def test_a_key_that_looks_like_anothers_digest_is_another_key(table: LimitTable) -> None:
    long = table.make_key(b"k" * 65)
    assert table.make_key(long.stored[:16]) != long
    assert claim(table, b"k" * 65) != claim(table, long.stored[:16])


def test_keys_that_differ_in_zeros_at_the_end_are_different(table: LimitTable) -> None:
    assert claim(table, b"acme") != claim(table, b"acme\0")


def test_a_full_table_has_no_row_for_another_key(table: LimitTable) -> None:
    rows = [claim(table, b"%d" % number) for number in range(CUSTOMERS.rows)]
    assert table.rows_in_use == CUSTOMERS.rows
    with pytest.raises(TableFullError):
        claim(table, b"one more")
    assert [claim(table, b"%d" % number) for number in range(CUSTOMERS.rows)] == rows


def test_a_table_that_fills_between_two_looks_is_full(table: LimitTable, monkeypatch: pytest.MonkeyPatch) -> None:
    def lock() -> bool:
        table.words[at.IN_USE] = table.words[at.HIGH] = CUSTOMERS.rows
        return True

    monkeypatch.setattr(table.file, "lock", lock)
    with pytest.raises(TableFullError):
        claim(table, b"acme")
    assert not table.words[at.PENDING]


def test_keys_claimed_at_once_get_the_last_rows_in_turn(table: LimitTable) -> None:
    for number in range(CUSTOMERS.rows - 1):
        claim(table, b"%d" % number)
    with pytest.raises(TableFullError):
        table.find_all([(b"acme", WIDTH, 0), (b"globex", WIDTH, 0), (b"initech", WIDTH, 0)], 1000.0)
    assert table.peek(table.make_key(b"acme")) is not None
    assert table.rows_in_use == len(taken(table)) == CUSTOMERS.rows


def test_row_that_a_power_cut_left_above_the_last_one_is_new(table: LimitTable) -> None:
    """The header is older than the row: no list of free rows leads to it, whatever its words say."""
    row = table.row(0)
    for word in (at.ROW_GENERATION, at.ROW_STATE, at.ROW_BORN):
        table.words[row + word] = 4
    header = table.words[: at.IN_USE].tolist()
    assert table.find(table.make_key(b"acme"), WIDTH, 1000.0) == (row, 2, True)
    assert table.words[: at.IN_USE].tolist() == header
    assert (table.high, table.words[at.FREE], table.words[at.FREE_GAUGES]) == (1, 0, 0)


def test_a_key_without_a_free_slot_near_it_has_no_row(table: LimitTable) -> None:
    table.words[at.HEADER_WORDS : table.layout.first_row] = memoryview(
        b"\xff" * 8 * (table.layout.first_row - at.HEADER_WORDS)
    ).cast("Q")
    with pytest.raises(TableFullError):
        claim(table, b"acme")


def test_locked_table_finds_known_rows_and_refuses_new_ones(table: LimitTable, path: Path) -> None:
    row = claim(table, b"acme")
    other = limits(path, 1)
    assert other.file.lock()
    assert claim(table, b"acme") == row
    with pytest.raises(TableBusyError):
        claim(table, b"globex")
    other.file.unlock()
    claim(table, b"globex")


def test_claim_waits_for_a_briefly_held_flock(table: LimitTable, path: Path) -> None:
    other = limits(path, 1)
    assert other.file.lock()
    released = threading.Timer(FLOCK_WAIT_SECONDS / 10, other.file.unlock)
    released.start()
    claim(table, b"acme")
    released.join()


def test_claim_waits_for_a_held_flock_at_most_once_per_retry_interval(
    table: LimitTable, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [100.0]
    monkeypatch.setattr("edgeproxy.edge.counters.rows.monotonic", lambda: clock[0])
    monkeypatch.setattr("edgeproxy.edge.counters.rows.sleep", lambda pause: clock.append(clock.pop() + pause))
    other = limits(path, 1)
    assert other.file.lock()
    for waited in (FLOCK_WAIT_SECONDS, 0.0, 0.0):
        before = clock[0]
        with pytest.raises(TableBusyError):
            claim(table, b"acme")
        assert clock[0] - before == pytest.approx(waited, abs=0.001)
    clock[0] += FLOCK_RETRY_SECONDS
    before = clock[0]
    with pytest.raises(TableBusyError):
        claim(table, b"acme")
    assert clock[0] - before == pytest.approx(FLOCK_WAIT_SECONDS, abs=0.001)


def test_a_flock_that_is_given_back_meanwhile_is_taken(
    table: LimitTable, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = limits(path, 1)
    assert other.file.lock()
    monkeypatch.setattr("edgeproxy.edge.counters.rows.sleep", lambda _: other.file.unlock())
    assert table.words[claim(table, b"acme") + at.ROW_HASH]


def test_a_row_that_another_is_just_claiming_is_not_claimed_twice(
    table: LimitTable, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = limits(path, 1)
    under_way, go_on = threading.Event(), threading.Event()
    pack, peek = other._pack_new_row, table.peek

    def slow(*arguments: Any) -> None:
        under_way.set()
        assert go_on.wait(10)
        pack(*arguments)

    monkeypatch.setattr(other, "_pack_new_row", slow)
    claimer = threading.Thread(target=lambda: claim(other, b"acme"))
    claimer.start()
    assert under_way.wait(10)

    def look_then_let_it_go_on(key: RowKey) -> int | None:
        row = peek(key)
        go_on.set()
        claimer.join()
        return row

    monkeypatch.setattr(table, "peek", look_then_let_it_go_on)
    row, _, fresh = table.find(table.make_key(b"acme"), WIDTH, 1000.0)
    assert not fresh
    assert row == claim(other, b"acme")
    assert table.rows_in_use == 1


def test_a_row_that_became_anothers_while_it_was_looked_up_is_left(
    table: LimitTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    heir = claim(table, b"globex")
    looked = iter([heir])
    peek = table.peek
    monkeypatch.setattr(table, "peek", lambda key: next(looked, None) or peek(key))
    assert claim(table, b"acme") != heir


def test_find_sees_a_row_published_just_before_its_claimer_died(
    table: LimitTable, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dying = limits(path, 1)
    lock = table.file.lock

    def late() -> bool:
        # Between the look and the lock: killed right after its row was published.
        dying.words = dying.index.words = Cut(dying.words, CLAIM_STORES[False] - 1)  # type: ignore[assignment]
        with pytest.raises(Killed):
            claim(dying, b"acme")
        dying.file.unlock()
        return lock()

    monkeypatch.setattr(table.file, "lock", late)
    assert table.find(table.make_key(b"acme"), WIDTH, 1000.0)[2] is False


def test_closing_row_is_live_again_after_a_find(table: LimitTable) -> None:
    row = claim(table, b"acme")
    table.words[row + at.ROW_GENERATION] += 1
    assert table.find(table.make_key(b"acme"), WIDTH, 1000.0) == (row, 4, False)


def test_a_closing_row_stays_closing_while_the_flock_is_not_to_be_had(table: LimitTable, path: Path) -> None:
    row = claim(table, b"acme")
    table.words[row + at.ROW_GENERATION] += 1
    other = limits(path, 1)
    assert other.file.lock()
    with pytest.raises(TableBusyError):
        claim(table, b"acme")
    assert table.words[row + at.ROW_GENERATION] == 3
    other.file.unlock()


def test_a_freed_row_is_given_to_the_next_key_clean_and_of_a_new_generation(table: LimitTable) -> None:
    row = claim(table, b"acme")
    write_cell(table, row, 0, 77, 5)
    write_cell(table, row, 3, 78, 6)
    table.words[row + table.head_at] = 5
    table.write_foreign(row, {76: 3})
    sync = table.words[row + at.ROW_SYNC]
    table.words[row + at.ROW_GENERATION] += 1
    table.free(number_of(table, row))
    assert table.peek(table.make_key(b"acme")) is None
    assert table.rows_in_use == 0
    assert claim(table, b"globex") == row
    assert not any(list_ring_words(table, row))
    assert not any(table.words[row + CUSTOMERS.heads : row + CUSTOMERS.row_words].tolist())
    assert table.words[row + at.ROW_STATE] == len(b"globex")
    assert table.words[row + at.ROW_GENERATION] == 4
    assert table.words[row + at.ROW_SYNC] > sync
    assert table.high == 1


def test_a_row_takes_memory_for_the_rings_in_use_alone(tmp_path: Path) -> None:
    layout = CUSTOMERS._replace(rows=4000, columns=2)
    path = make(tmp_path, layout)
    table = limits(path, 0)
    for number in range(layout.rows):
        row = claim(table, b"%d" % number)
        write_cell(table, row, 0, 77, 5)
        assert table.counts(row, 77) == {77: 5}
    used = layout.list_extents(0, layout.rows)[1][1]
    assert used * 0.9 < measure_resident_bytes(path) < used + (256 << 10)
    table.write_foreign(row, {76: 3})
    assert table.counts(row, 77) == {77: 5, 76: 3}


def test_rows_of_things_in_use_take_no_memory_for_rings(tmp_path: Path) -> None:
    layout = CUSTOMERS._replace(rows=16_384, columns=2)
    path = make(tmp_path, layout)
    table = limits(path, 0)
    for number in range(layout.rows // 2):
        keys = [(b"r%d" % number, WIDTH, 0), (b"c%d" % number, WIDTH, HAS_GAUGES)]
        (row, _, _), (gauge, _, _) = table.find_all(keys, 1000.0)
        write_cell(table, row, 0, 77, 5)
        assert (table.counts(row, 77), table.counts(gauge, 77)) == ({77: 5}, {})
        # Nor do readers of heads touch those that lie apart.
        assert (table.retained_until(row), table.heads(row).counted, table.in_use(gauge)) == (0, 0, 0)
    rows, rings, *_ = layout.list_extents(0, layout.rows)
    used = rows[1] + (rings[1] - rings[0]) // 2
    assert used * 0.9 < measure_resident_bytes(path) < used * 1.1


def free_row(table: LimitTable, row: int) -> None:
    """Free a row as the supervisor does."""
    table.words[row + at.ROW_GENERATION] += 1
    table.free(number_of(table, row))


def claim_gauge(table: LimitTable, key: bytes) -> int:
    """Claim the row of things in use."""
    return table.find(table.make_key(key), WIDTH, 1000.0, HAS_GAUGES)[0]


def test_freed_rows_are_given_to_keys_of_their_kind(table: LimitTable) -> None:
    rate, gauge = claim(table, b"acme"), claim_gauge(table, b"acme/slots")
    free_row(table, rate)
    free_row(table, gauge)
    assert claim_gauge(table, b"globex/slots") == gauge
    assert claim(table, b"globex") == rate


@pytest.mark.parametrize("kinds", ["rg", "gr", "rrg", "ggr", "r", "g"])
def test_every_row_is_for_either_kind_once_the_others_are_used(table: LimitTable, kinds: str) -> None:
    rows = set()
    for number in range(CUSTOMERS.rows):
        create = claim if kinds[number % len(kinds)] == "r" else claim_gauge
        rows.add(create(table, b"%d" % number))
    assert rows == {table.row(number) for number in range(CUSTOMERS.rows)}
    for create in (claim, claim_gauge):
        with pytest.raises(TableFullError):
            create(table, b"more")


def test_a_full_disk_leaves_the_allocated_rows_to_things_in_use(
    table: LimitTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    table.words[at.ALLOCATED] = 3
    monkeypatch.setattr(table.file, "allocate", lambda rows: rows <= 3)
    rows = {claim_gauge(table, b"%d" % number) for number in range(2)} | {claim(table, b"acme")}
    assert rows == {table.row(number) for number in range(3)}
    for create in (claim, claim_gauge):
        with pytest.raises(TableFullError):
            create(table, b"more")


def test_a_row_that_was_a_rate_has_empty_rings_for_each_later_key(table: LimitTable) -> None:
    rows = [claim(table, b"%d" % number) for number in range(CUSTOMERS.rows)]
    write_cell(table, rows[3], 0, 77, 5)
    write_cell(table, rows[3], 3, 77, 5)
    table.write_foreign(rows[3], {76: 3})
    free_row(table, rows[3])
    assert claim_gauge(table, b"slots") == rows[3]
    assert not any(list_ring_words(table, rows[3]))
    free_row(table, rows[3])
    assert claim(table, b"acme") == rows[3]
    assert not any(list_ring_words(table, rows[3]))
    assert table.counts(rows[3], 77) == {}


def test_repair_finds_the_free_rows_of_both_kinds(table: LimitTable) -> None:
    rates = [claim(table, b"%d" % number) for number in range(3)]
    gauge = claim_gauge(table, b"slots")
    free_row(table, rates[1])
    free_row(table, gauge)
    table.words[at.FREE] = table.words[at.FREE_GAUGES] = 0
    assert table.file.lock()
    assert repair(table) == CUSTOMERS.rows - 2
    table.file.unlock()
    assert claim(table, b"globex") == rates[1]
    assert table.words[claim_gauge(table, b"globex/slots") + at.ROW_HASH]
    assert table.words[at.FREE] == 0
    assert table.words[at.FREE_GAUGES]


def test_foreign_head_write_changes_only_the_given_words(table: LimitTable) -> None:
    row = claim(table, b"acme")
    head = row + CUSTOMERS.head(-1)
    table.write_foreign(row, {}, (1, 2, 3, 4))
    assert table.words[head : head + CUSTOMERS.row_words].tolist() == [1, 2, 3, 4] + [0] * (CUSTOMERS.row_words - 4)
    table.write_foreign(row, {}, (5, 6))
    table.write_foreign(row, {})
    assert table.words[head : head + CUSTOMERS.row_words].tolist() == [5, 6, 3, 4] + [0] * (CUSTOMERS.row_words - 4)
    assert not any(table.words[row + CUSTOMERS.head(0) : row + CUSTOMERS.row_words].tolist())


def test_row_is_retained_until_the_latest_moment_of_any_column(table: LimitTable) -> None:
    row = claim(table, b"acme")
    assert table.retained_until(row) == 0
    for place, column in enumerate((0, 3, -1, 1)):
        # The words beside UNTIL do not affect retention.
        write_head(table, row, column, (0, 0, 1 << 60, 5000 + place))
        assert table.retained_until(row) == 5 + place / 1000


def test_a_worker_knows_which_heads_are_used(path: Path) -> None:
    first, spare = limits(path, 0), limits(path, 3)
    row = claim(first, b"acme")
    lone = at.LONE_HEAD_WORDS
    assert first.head_at == CUSTOMERS.head(0)
    assert first.list_head_spans(row) == [(row + CUSTOMERS.heads, row + CUSTOMERS.heads + 2 * lone)]
    assert first.siblings == (1,)
    assert spare.head_at == CUSTOMERS.head(3)
    assert spare.declare_column()
    first.refresh_columns()
    far = row + CUSTOMERS.far_heads
    assert first.list_head_spans(row) == spare.list_head_spans(row)
    assert first.list_head_spans(row)[1:] == [(far + lone, far + 3 * lone)]
    assert first.siblings == (1, 3)
    assert spare.siblings == (0, 1)
    first.write_foreign(row, {}, (1,))
    assert first.list_head_spans(row)[0] == (far, far + lone)
    assert first.read_heads(row)[::lone] == [1, 0, 0, 0, 0]


@pytest.mark.parametrize("is_gauge", [False, True])
def test_far_heads_are_empty_for_the_next_key(path: Path, is_gauge: bool) -> None:
    table = limits(path, 0)
    row = claim(table, b"acme", flags=HAS_GAUGES if is_gauge else 0)
    write_head(table, row, at.FOREIGN_COLUMN, (1, 2, 3, 4))
    write_head(table, row, 3, (5, 6, 7, 8))
    free_row(table, row)
    assert claim(table, b"globex", flags=HAS_GAUGES if is_gauge else 0) == row
    table.words[row + at.ROW_STATE] |= HAS_FOREIGN
    assert not any(table.read_heads(row))


def test_row_key_is_recomputed_for_a_table_with_another_seed(table: LimitTable, tmp_path: Path) -> None:
    other = limits(make(tmp_path, CUSTOMERS, generation=2), 0)
    for key in (b"acme", b"long" * 30):
        row = claim(table, key)
        table.write_foreign(row, {1: 1})
        assert other.make_key_of(table, row) == other.make_key(key) != table.make_key(key)


def test_header_passes_for_no_row(table: LimitTable) -> None:
    assert not table.has(0, table.words[at.ROW_GENERATION])


def test_rows_of_new_keys_are_claimed_together(path: Path) -> None:
    table, other = limits(path, 0), limits(path, 1)
    by_slot = {table.index.hash(b"%d" % number) % table.index.slots: b"%d" % number for number in range(50)}
    rate, slots = list(by_slot.values())[:2]
    keys = [(rate, 1_000_000, 0), (slots, CELL_US_MIN, HAS_GAUGES)]
    changes = table.words[at.CHANGES]
    first = table.find_all(keys, 5.0)
    assert [fresh for _, _, fresh in first] == [True, True]
    assert table.words[at.CHANGES] == changes + 1
    assert other.find_all(keys, 6.0) == [(row, generation, False) for row, generation, _ in first]
    for (row, _, _), (key, width, flags) in zip(first, keys, strict=True):
        assert (other.stored_key(row), other.cell_width(row), other.counts_gauges(row)) == (key, width, bool(flags))
        assert other.born(row) == 5000
    assert table.rows_in_use == 2


def test_known_and_new_keys_are_looked_up_together(path: Path) -> None:
    table = limits(path, 0)
    known = claim(table, b"acme")
    long = b"k" * (at.KEY_BYTES + 1)
    (digested, _, _), (row, _, fresh), (new, _, is_new) = table.find_all(
        [(long, 1_000_000, 0), (b"acme", 1_000_000, 0), (b"globex", 1_000_000, 0)], 0.0
    )
    assert (row, fresh, is_new) == (known, False, True)
    assert (new, digested) == (claim(table, b"globex"), claim(table, long))


@pytest.mark.parametrize("freed", [0, 1, 3])
def test_keys_that_are_claimed_together_find_no_row_of_others(path: Path, freed: int) -> None:
    table, chance = limits(path, 0), random.Random(freed)
    rows: dict[bytes, int] = {}
    for round_ in range(CUSTOMERS.rows // 2):
        keys = [b"%d:%d" % (round_, part) for part in range(2)]
        claimed = table.find_all([(key, 1_000_000, 0) for key in keys], 0.0)
        rows.update(zip(keys, [row for row, _, _ in claimed], strict=True))
        for key in chance.sample(sorted(rows), min(freed, len(rows) - 1)) if round_ == 3 else ():
            table.free(number_of(table, rows.pop(key)))
    assert len(set(rows.values())) == len(rows) == table.rows_in_use
    assert all(claim(table, key) == row for key, row in rows.items())


def test_keys_that_share_a_slot_get_rows_of_their_own(table: LimitTable, monkeypatch: pytest.MonkeyPatch) -> None:
    hashes = {b"a": 7 << 24, b"b": 8 << 24, b"c": 7 << 24}
    monkeypatch.setattr(table.index, "hash", hashes.__getitem__)
    rows = [row for row, _, _ in table.find_all([(key, WIDTH, 0) for key in hashes], 0.0)]
    assert rows == [claim(table, key) for key in hashes]
    assert len(set(rows)) == 3
    assert table.find_all([], 0.0) == []


def test_keys_are_looked_up_again_if_another_process_claims_one_first(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, other = limits(path, 0), limits(path, 1)
    lock, rows = table.file.lock, []

    def lock_late() -> bool:
        if not rows:
            rows.append(claim(other, b"acme"))
        return lock()

    monkeypatch.setattr(table.file, "lock", lock_late)
    (row, _, fresh), (new, _, is_new) = table.find_all([(b"acme", WIDTH, 0), (b"globex", WIDTH, 0)], 0.0)
    assert ([row], fresh, is_new) == (rows, False, True)
    assert table.rows_in_use == 2
    assert new != row


def test_keys_without_room_for_all_are_refused(path: Path) -> None:
    table = limits(path, 0)
    for number in range(CUSTOMERS.rows - 1):
        claim(table, b"%d" % number)
    with pytest.raises(TableFullError):
        table.find_all([(b"acme", 1_000_000, 0), (b"globex", 1_000_000, 0)], 0.0)
    assert not table.words[at.PENDING]


@pytest.mark.parametrize("stores", range(1, 20))
def test_a_column_whose_worker_is_killed_while_it_declares_it_is_read(path: Path, stores: int) -> None:
    other = limits(path, 0)
    spare = CUSTOMERS.columns - 1
    dying = limits(path, spare)
    dying.words = Cut(dying.words, stores)  # type: ignore[assignment]
    assert dying.file.lock()
    with pytest.raises(Killed):
        dying.declare_column()
    dying.file.close()
    successor = limits(path, spare)
    assert successor.file.lock()
    successor.declare_column()
    successor.file.unlock()
    other.refresh_columns()
    assert (spare in other.used_columns, spare in other.siblings) == (True, True)


CLAIM_STORES = {False: 7, True: 9}
"""Stores of single words in a claim, by whether the row was freed."""
CUTS = [(freed, stores) for freed, most in CLAIM_STORES.items() for stores in range(-1, most + 1)]
"""True if the row was freed, and the number of the store that does not happen; 0: the words that one call writes, -1:
the rest of the key.
"""


@pytest.mark.parametrize(("freed", "stores"), CUTS)
def test_repair_restores_a_table_after_a_kill_during_a_claim(
    path: Path, monkeypatch: pytest.MonkeyPatch, freed: bool, stores: int
) -> None:
    def die(*words: object) -> None:
        raise Killed

    table, dying = limits(path, 0), limits(path, 1)
    claim(table, b"acme")
    claim(table, b"globex")
    if freed:
        table.free(number_of(table, claim(table, b"acme")))
    if stores > 0:
        dying.words = dying.index.words = Cut(dying.words, stores)  # type: ignore[assignment]
    else:
        monkeypatch.setattr(dying, "_write_rest" if stores else "_pack_row" if freed else "_pack_new_row", die)
    key = b"initech" * 9
    with pytest.raises(Killed):
        claim(dying, key)
    assert table.file.lock()
    assert table.words[at.DAMAGED] or stores == 1
    repair(table)
    table.file.unlock()
    assert not table.words[at.DAMAGED]
    in_use = taken(table)
    assert table.rows_in_use == len(in_use)
    assert {number_of(table, row) for row in table.rows()} == in_use
    everyone = [claim(table, b"%d" % number) for number in range(CUSTOMERS.rows - len(in_use))]
    assert len({*everyone, *(table.row(number) for number in in_use)}) == CUSTOMERS.rows
    assert claim(table, b"globex")
    assert {table.stored_key(row) for row in map(table.row, in_use)} <= {b"acme", b"globex", key}


@pytest.mark.parametrize("stores", range(1, 12))
def test_repair_restores_a_table_after_a_kill_during_a_claim_of_a_gauge(path: Path, stores: int) -> None:
    table, dying = limits(path, 0), limits(path, 1)
    claim(table, b"acme")
    dying.words = dying.index.words = Cut(dying.words, stores)  # type: ignore[assignment]
    with pytest.raises(Killed):
        claim_gauge(dying, b"slots")
    assert table.file.lock()
    repair(table)
    table.file.unlock()
    in_use = taken(table)
    assert table.rows_in_use == len(in_use) == len(list(table.rows()))
    everyone = [claim_gauge(table, b"%d" % number) for number in range(CUSTOMERS.rows - len(in_use))]
    assert len({*everyone, *(table.row(number) for number in in_use)}) == CUSTOMERS.rows


@pytest.mark.parametrize("stores", range(1, 8))
def test_repair_restores_a_table_after_a_kill_during_a_free(path: Path, stores: int) -> None:
    table, dying = limits(path, 0), limits(path)
    for key in (b"acme", b"globex"):
        claim(table, key)
    number = number_of(table, claim(table, b"acme"))
    dying.words = dying.index.words = Cut(dying.words, stores)  # type: ignore[assignment]
    with pytest.raises(Killed):
        dying.free(number)
    assert table.file.lock()
    repair(table)
    table.file.unlock()
    assert table.rows_in_use == len(taken(table)) == len(list(table.rows()))
    for other in range(CUSTOMERS.rows - table.rows_in_use):
        claim(table, b"%d" % other)
    assert table.rows_in_use == CUSTOMERS.rows


def test_claim_clears_a_row_with_stale_content(table: LimitTable) -> None:
    # After a power cut: the disk has the row's words, but not that the row was handed out.
    row = table.row(0)
    table.words[row : row + CUSTOMERS.row_words] = memoryview(b"\x7e" * 8 * CUSTOMERS.row_words).cast("Q")
    assert claim(table, b"acme") == row
    assert not any(table.words[row + CUSTOMERS.heads : row + CUSTOMERS.row_words].tolist())
    assert table.words[row + at.ROW_STATE] == len(b"acme")
    assert not table.words[row + at.ROW_GENERATION] & 1


def test_repair_frees_rows_whose_key_does_not_match_the_index(table: LimitTable) -> None:
    acme, globex, initech = (claim(table, key) for key in (b"acme", b"globex", b"initech"))
    # A power cut may leave this state: one row without its key, one with the key of its next owner, and index entries
    # that lead to rows beyond the high mark.
    table.words[acme + at.ROW_HASH] = 0
    table.file.bytes[(globex + at.ROW_KEY) * at.WORD] ^= 1
    slot = table.index.find_vacancy(table.make_key(b"hooli").hash)
    assert slot is not None
    table.index.publish(slot, table.make_key(b"hooli").hash, CUSTOMERS.rows)
    table.words[at.HIGH] = 1
    assert repair(table) == 2
    assert list(table.rows()) == [initech]
    assert taken(table) == {number_of(table, initech)}
    assert table.peek(table.make_key(b"initech")) == initech
    assert table.peek(table.make_key(b"acme")) is table.peek(table.make_key(b"globex")) is None
    assert (table.high, table.rows_in_use) == (3, 1)
    assert {claim(table, b"acme"), claim(table, b"globex")} == {acme, globex}


def test_damaged_table_is_repaired_unless_another_process_locks_it(table: LimitTable, path: Path) -> None:
    claim(table, b"acme")
    table.words[at.DAMAGED] = 1
    table.words[at.IN_USE] = 17
    other = limits(path)
    assert other.file.lock()
    repair_if_free(table)
    assert table.rows_in_use == 17
    other.file.unlock()
    repair_if_free(table)
    assert table.rows_in_use == 1
    assert not table.words[at.DAMAGED]


def test_keys_come_and_go_at_random_and_every_row_is_somebodys_or_free(table: LimitTable, seed: int) -> None:
    chance = random.Random(seed)
    there: dict[bytes, int] = {}
    for _ in range(3000):
        number = chance.randrange(30)
        key = b"%d" % number + b"k" * (3 * number)
        if key in there and chance.random() < 0.5:
            table.free(number_of(table, there.pop(key)))
        elif key in there or len(there) < CUSTOMERS.rows:
            row = claim(table, key)
            assert there.setdefault(key, row) == row
        assert table.rows_in_use == len(there)
    assert {bytes(key): table.peek(table.make_key(key)) for key in there} == there
    assert sorted(table.rows()) == sorted(there.values())


# ---- columns


def test_a_worker_reads_the_columns_of_the_others_that_may_change(path: Path) -> None:
    first, second = limits(path, 0), limits(path, 1)
    assert first.siblings_at == (32,)
    assert second.siblings_at == (0,)
    assert first.span == second.span == 64
    assert first.active == 2
    assert not first.declare_column()


class Told:
    """A reader that remembers that it was told."""

    def __init__(self) -> None:
        self.times = 0

    def invalidate(self) -> None:
        self.times += 1


def test_a_worker_on_a_spare_column_is_seen_by_all_once_they_have_looked(path: Path) -> None:
    first, second, spare = limits(path, 0), limits(path, 1), limits(path, 3)
    reader = Told()
    first.readers[b"key"] = reader
    assert not first.refresh_columns()
    assert spare.declare_column()
    assert not spare.declare_column()
    assert not spare.seen_by(frozenset({0, 1}), spare.version)
    assert first.refresh_columns()
    assert reader.times == 1
    far = CUSTOMERS.spare + 32
    assert first.siblings_at == (32, far)
    assert (first.span, first.far_columns) == (64, (3,))
    assert first.far_span == (far, far + 32)
    assert not spare.seen_by(frozenset({0, 1}), spare.version)
    assert second.refresh_columns()
    assert second.siblings_at == (0, far)
    assert spare.seen_by(frozenset({0, 1}), spare.version)
    assert spare.siblings_at == (0, 32)
    assert not first.refresh_columns()


def test_columns_without_a_worker_are_still_summed_but_not_read_at_every_decision(path: Path) -> None:
    first, second = limits(path, 0), limits(path, 1)
    supervisor = limits(path)
    assert supervisor.limit_active_columns(frozenset({0, 2, 3}))
    assert not supervisor.limit_active_columns(frozenset({0, 2, 3}))
    assert first.refresh_columns()
    assert first.siblings_at == ()
    assert first.span == 64
    assert first.active == 1
    assert second.refresh_columns()
    assert second.declare_column()
    assert first.refresh_columns()
    assert first.siblings_at == (32,)


def test_a_supervisor_has_no_column_to_enter(path: Path) -> None:
    assert not limits(path).declare_column()


def test_columns_above_the_first_64_have_their_bits(tmp_path: Path) -> None:
    table = CUSTOMERS._replace(columns=200, rows=2)
    path = make(tmp_path, table)
    last = limits(path, 199)
    assert last.declare_column()
    first = limits(path, 0)
    assert first.siblings_at[-1] == table.spare + 99 * 32
    assert len(first.siblings_at) == 100
