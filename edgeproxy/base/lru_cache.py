"""A bounded cache that evicts the least recently used entries. Its hits are as cheap as a dictionary's.

The entries are in two generations. Once the younger is full, it replaces the older one, which is evicted. A used entry
moves back to the younger generation. So hits there write nothing, and entries that are used once per generation stay.
"""

from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")


class LRUCache(dict[K, V | None]):
    """A mapping whose `cache[key]` is None for a key that is not cached. It has at most `capacity` entries.

    As a dictionary, it is only the younger generation: `get` and `in` do not see the older one. They are cheaper than
    `cache[key]` if most keys are new. Such a caller may `store` an entry of the older generation again.
    """

    __slots__ = ("_generation_size", "_hashes_seen", "_older")

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self._generation_size = max(1, capacity // 2)
        self._older: dict[K, V | None] = {}
        self._hashes_seen: set[int] = set()
        """The hashes of keys that came once, up to `capacity`. A hash of two keys admits one of them too early."""

    def __missing__(self, key: K) -> V | None:
        return self.recall_older(key)

    def recall_older(self, key: K) -> V | None:
        """Return the value of a key that the younger generation does not have; None if it is not cached."""
        value = self._older.pop(key, None)
        if value is not None:
            self.admit(key, value)
        return value

    def store(self, key: K, value: V) -> V:
        """Cache a value and return it. Once half of the capacity is used, only keys that were stored before are cached.

        So a flood of unique keys evicts nothing.
        """
        if len(self) < self._generation_size and not self._older:
            self[key] = value
            return value
        seen, digest = self._hashes_seen, hash(key)
        if digest in seen or key in self or key in self._older:
            seen.discard(digest)
            return self.admit(key, value)
        if len(seen) >= 2 * self._generation_size:
            seen.clear()
        seen.add(digest)
        return value

    def admit(self, key: K, value: V) -> V:
        """Cache a value at once and return it. This is for keys that clients cannot invent."""
        if len(self) >= self._generation_size and key not in self:
            self._older = self.copy()
            super().clear()
        self[key] = value
        return value

    def clear(self) -> None:
        """Remove every entry and all hashes of keys."""
        super().clear()
        self._older = {}
        self._hashes_seen = set()


class BytesCache(LRUCache[bytes, V]):
    """An LRUCache of keys up to `key_bytes_max`. Longer keys are rare, and a few would use much memory."""

    __slots__ = ("_key_bytes_max",)

    def __init__(self, capacity: int, key_bytes_max: int) -> None:
        super().__init__(capacity)
        self._key_bytes_max = key_bytes_max

    def store(self, key: bytes, value: V) -> V:
        return super().store(key, value) if len(key) <= self._key_bytes_max else value
