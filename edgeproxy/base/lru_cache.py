"""A bounded cache that evicts the least recently used entries, and whose hits cost no more than those of a dictionary.

The entries are in two generations. Once the younger is full it becomes the older one, which is evicted; an entry that
is used moves back to the younger. So nothing is written at a hit, and whatever is used once in a generation stays.
"""

from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")


class LRUCache(dict[K, V | None]):
    """Key -> value: `cache[key]` is None for a key that is not cached. At most `capacity` entries.

    As a dictionary, this is the younger generation alone: `get` and `in` do not see the older one, and cost less than
    `cache[key]` where most keys are new. Such a caller may `store` what is in the older generation once more.
    """

    __slots__ = ("_generation_size", "_hashes_seen", "_older")

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self._generation_size = max(1, capacity // 2)
        self._older: dict[K, V | None] = {}
        self._hashes_seen: set[int] = set()
        """The hashes of keys that came once, as many as `capacity`; a hash shared by two admits one of them early."""

    def __missing__(self, key: K) -> V | None:
        value = self._older.pop(key, None)
        if value is not None:
            self.admit(key, value)
        return value

    def store(self, key: K, value: V) -> V:
        """Cache a value, and return it. Once half of the capacity has been used, a key must have come before.

        So a flood of keys that come once evicts nothing.
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
        """Cache a value whose key nobody can invent, whatever has come before, and return it."""
        if len(self) >= self._generation_size and key not in self:
            self._older = self.copy()
            super().clear()
        self[key] = value
        return value

    def clear(self) -> None:
        """Remove every entry, and forget which keys came once."""
        super().clear()
        self._older = {}
        self._hashes_seen = set()


class BytesCache(LRUCache[bytes, V]):
    """An LRUCache of keys of at most `key_bytes_max`; longer ones are rare, and a few would fill much memory."""

    __slots__ = ("_key_bytes_max",)

    def __init__(self, capacity: int, key_bytes_max: int) -> None:
        super().__init__(capacity)
        self._key_bytes_max = key_bytes_max

    def store(self, key: bytes, value: V) -> V:
        return super().store(key, value) if len(key) <= self._key_bytes_max else value
