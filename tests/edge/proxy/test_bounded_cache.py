"""Bounded memories."""

from edgeproxy.edge.proxy.bounded_cache import ENTRIES_MAX, KEY_BYTES_MAX, store_bytes


def test_what_is_remembered_is_returned_and_kept() -> None:
    memory: dict[bytes, int] = {}
    assert store_bytes(memory, b"k", 7) == 7
    assert memory == {b"k": 7}


def test_a_full_memory_is_emptied_before_the_next_entry() -> None:
    memory: dict[bytes, int] = {}
    for n in range(ENTRIES_MAX):
        store_bytes(memory, b"%d" % n, n)
    assert len(memory) == ENTRIES_MAX
    store_bytes(memory, b"next", 1)
    assert memory == {b"next": 1}


def test_long_keys_are_not_kept() -> None:
    memory: dict[bytes, int] = {}
    assert store_bytes(memory, b"x" * (KEY_BYTES_MAX + 1), 1) == 1
    assert not memory
    store_bytes(memory, b"x" * KEY_BYTES_MAX, 1)
    assert len(memory) == 1
