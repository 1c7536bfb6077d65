from hashlib import blake2b, blake2s
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.edge.counters import layout as at
from edgeproxy.edge.counters.file import TableFile
from edgeproxy.edge.counters.index import EMPTY, ROW_BITS, TOMBSTONE, Index
from edgeproxy.edge.counters.layout import HEADS_APART, Layout
from tests.support.tables import CUSTOMERS, HEADS_WITHIN, USAGE, fresh, make, opened

BOTH_ORDERS = True


@pytest.fixture
def index(tmp_path: Path) -> Index:
    return Index(opened(make(tmp_path, CUSTOMERS)))


def near(index: Index, home: int, number: int) -> int:
    """A hash whose way begins at slot `home`, different for each number."""
    step = index.slots << ROW_BITS
    return step * (number + 1) + home


def look(index: Index, key_hash: int) -> int | None:
    return index.find_row(key_hash, lambda _: True)


def put(index: Index, key_hash: int, row: int) -> int:
    slot = index.find_vacancy(key_hash)
    assert slot is not None
    index.publish(slot, key_hash, row)
    return slot


def test_a_hash_is_the_same_in_every_process_and_has_upper_bits(tmp_path: Path) -> None:
    path = make(tmp_path, CUSTOMERS)
    one, other = Index(opened(path)), Index(opened(path))
    assert one.hash(b"acme") == other.hash(b"acme") >= 1 << ROW_BITS


@given(key=st.binary(max_size=100))
def test_no_hash_passes_for_an_empty_slot_or_a_tombstone(key: bytes) -> None:
    with fresh(CUSTOMERS) as path:
        assert Index(opened(path)).hash(key) >> ROW_BITS


def create_expected_hash(file: TableFile) -> bytes:
    """Return the hash of a key in the words of the standard library."""
    seed = file.seed
    if file.layout.parts == HEADS_APART:
        return blake2s(b"acme", digest_size=8, salt=seed[:8], person=seed[8:]).digest()
    return blake2b(b"acme", digest_size=8, key=seed).digest()


@pytest.mark.parametrize("layout", [CUSTOMERS, HEADS_WITHIN, USAGE])
def test_a_hash_is_that_of_earlier_programs(tmp_path: Path, layout: Layout) -> None:
    file = opened(make(tmp_path, layout))
    index, expected = Index(file), create_expected_hash(file)
    assert index.hash(b"acme") == index.hash(b"acme") == int.from_bytes(expected, "little")


def test_a_hash_without_upper_bits_is_given_one(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeproxy.edge.counters.index.read_hash", lambda digest: (5,))
    assert index.hash(b"acme") == 1 << ROW_BITS | 5


def test_the_way_may_lead_past_the_last_slot(index: Index) -> None:
    last = index.slots - 1
    slots = [put(index, near(index, last, number), number) for number in range(at.PROBES)]
    assert slots[-1] == at.HEADER_WORDS + last + at.PROBES - 1
    assert look(index, near(index, last, at.PROBES - 1)) == at.PROBES - 1


def test_a_way_ends_after_64_slots(index: Index) -> None:
    for number in range(at.PROBES):
        put(index, near(index, 0, number), number)
    assert index.find_vacancy(near(index, 0, 99)) is None
    assert look(index, near(index, 0, 99)) is None


def test_the_key_decides_between_rows_of_equal_hashes(index: Index) -> None:
    key_hash = near(index, 0, 0)
    put(index, key_hash, 4)
    put(index, key_hash, 9)
    assert index.find_row(key_hash, lambda row: row == 9) == 9
    assert index.find_row(key_hash, lambda row: False) is None


def test_index_probes_past_a_tombstone_and_reuses_it(index: Index) -> None:
    hashes = [near(index, 0, number) for number in range(3)]
    slots = [put(index, key_hash, row) for row, key_hash in enumerate(hashes)]
    index.remove(hashes[1], 1)
    assert index.words[slots[1]] == TOMBSTONE
    assert look(index, hashes[1]) is None
    assert look(index, hashes[2]) == 2
    assert index.find_slot_of_new(near(index, 0, 9)) == slots[1]
    assert index.find_slot_of_new(hashes[2]) is None, "a row may have this hash"
    assert put(index, near(index, 0, 9), 5) == slots[1]


def test_tombstones_before_an_empty_slot_become_empty(index: Index) -> None:
    hashes = [near(index, 0, number) for number in range(4)]
    slots = [put(index, key_hash, row) for row, key_hash in enumerate(hashes)]
    for row in (1, 2):
        index.remove(hashes[row], row)
    assert [index.words[slot] for slot in slots[1:3]] == [TOMBSTONE, TOMBSTONE]
    index.remove(hashes[3], 3)
    assert [index.words[slot] for slot in slots[1:]] == [EMPTY] * 3
    index.remove(hashes[0], 0)
    assert index.words[slots[0]] == EMPTY


def test_removing_an_absent_index_entry_changes_nothing(index: Index) -> None:
    slot = put(index, near(index, 0, 0), 3)
    index.remove(near(index, 0, 0), 4)
    index.remove(near(index, 0, 1), 3)
    assert index.words[slot] >> ROW_BITS
    assert [number for _, _, number in index.entries()] == [3]
