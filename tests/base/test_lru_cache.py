"""The least-recently-used cache: it behaves like a model, and a flood evicts no regular key."""

from collections.abc import Callable
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.base.lru_cache import BytesCache, LRUCache

CAPACITY = 8
OPERATIONS = st.lists(
    st.tuples(st.sampled_from(("look up", "get", "store", "admit", "clear")), st.integers(0, 30)), max_size=300
)


def count(cache: LRUCache[int, int]) -> int:
    return len(cache) + len(cache._older)


@given(OPERATIONS)
def test_lru_cache_returns_the_last_value_within_its_capacity(operations: list[tuple[str, int]]) -> None:
    cache: LRUCache[int, int] = LRUCache(CAPACITY)
    last: dict[int, int] = {}
    for number, (operation, key) in enumerate(operations, start=1):
        if operation == "look up":
            assert cache[key] in (None, last.get(key))
        elif operation == "get":
            assert cache.get(key) in (None, last.get(key))
        elif operation == "clear":
            cache.clear()
            last.clear()
        else:
            last[key] = number
            assert (cache.store if operation == "store" else cache.admit)(key, number) == number
            if operation == "admit":
                assert cache[key] == number
        assert count(cache) <= CAPACITY
        assert len(cache._hashes_seen) <= CAPACITY


@given(st.lists(st.integers(100, 130), max_size=200), st.integers(0, CAPACITY // 2 - 1))
def test_lru_cache_keeps_an_entry_used_once_in_half_its_capacity(others: list[int], regular: int) -> None:
    cache: LRUCache[int, int] = LRUCache(CAPACITY)
    cache.admit(regular, 1)
    for start in range(0, len(others), CAPACITY // 2):
        for key in others[start : start + CAPACITY // 2]:
            cache.admit(key, 0)
        assert cache[regular] == 1


@pytest.mark.parametrize("times", [1, 2])
def test_a_flood_of_keys_evicts_no_regular(times: int) -> None:
    """Keys used once evict no regular key.

    Keys used twice evict only a key that is used less often than they fill half of the cache.
    """
    cache: LRUCache[int, int] = LRUCache(CAPACITY)
    for _ in range(2):
        cache.store(-1, 1)
    misses = 0
    for key in range(100 * CAPACITY):
        for _ in range(times):
            cache.store(key, 0)
        if key % (CAPACITY // 2) == 0:
            misses += cache[-1] is None
    assert misses == 0
    if times == 1:
        assert len(cache._older) == 0, "nothing was evicted for keys that did not come again"


def test_lru_cache_replaces_unused_keys_with_new_regular_keys() -> None:
    cache: LRUCache[int, int] = LRUCache(CAPACITY)
    for key in range(CAPACITY):
        cache.admit(key, key)
    for key in range(100, 100 + CAPACITY):
        assert cache[key] is None
        cache.store(key, key)
        cache.store(key, key)
        assert cache[key] == key
    assert [cache[key] for key in range(CAPACITY)] == [None] * CAPACITY


def test_long_keys_are_not_stored() -> None:
    cache: BytesCache[int] = BytesCache(CAPACITY, 3)
    stores: Callable[[bytes], int] = partial(cache.store, value=1)
    assert [stores(b"abcd"), stores(b"abcd"), stores(b"abc")] == [1, 1, 1]
    assert set(cache) == {b"abc"}
