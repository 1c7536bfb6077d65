"""The keys of a configuration in little memory. As models, a hundred thousand of them take 55 MB."""

import re
from array import array
from bisect import bisect_right
from collections.abc import ItemsView, Iterable, Iterator, Mapping, Sequence
from mmap import mmap
from typing import TYPE_CHECKING, overload

from pydantic import ValidatorFunctionWrapHandler

from edgeproxy.config import parsers
from edgeproxy.config.customers import PLAIN_KEY, Key
from edgeproxy.config.forms import written
from edgeproxy.config.tree import FlatTable, Items, Value

LOWER_DIGEST = re.compile("[0-9a-f]{64}")
DIGEST_BYTES = 32
if TYPE_CHECKING:
    Keys = Sequence[Key]
else:
    Keys = tuple[Key, ...]  # The setting has the schema and the errors of a tuple.
PLAIN_EXAMPLE = Key(sha256="0" * 64, customer="x")


def pack_names(names: Iterable[str]) -> bytes:
    """Return names in one text. Each stands between two line feeds."""
    return "\n".join(("", *names, "")).encode()


def list_line_feeds(data: bytes | mmap) -> "array[int]":
    """Return the places of all line feeds, for example around packed names."""
    return array("I", [each.start() for each in re.finditer(b"\n", data)])


class KeyList(Sequence[Key]):
    """Keys that mostly have nothing but a digest and a customer. A key's model is created when it is read."""

    __slots__ = ("_digests", "_ends", "_first", "_names", "_others")

    def __init__(self, digests: bytes, names: Sequence[str], others: Mapping[int, Key]) -> None:
        """`digests` of all keys, `names` of their customers, and `others`: keys with more settings, by index."""
        self._digests: bytes | mmap = digests
        self._first = 0
        """The place of the first digest."""
        self._names: bytes | mmap = pack_names(names)
        self._ends: Sequence[int] = list_line_feeds(self._names)
        """The place of the line feed before each name, and of the last one."""
        self._others = dict(others)

    @property
    def digests(self) -> bytes:
        """The SHA-256 of all keys, one after another."""
        return self._digests[self._first : self._first + len(self) * DIGEST_BYTES]

    @property
    def names(self) -> bytes:
        """The customers of all keys, each between two line feeds."""
        return self._names[self._ends[0] : self._ends[-1] + 1]

    def __len__(self) -> int:
        """Return the number of keys."""
        return len(self._ends) - 1

    @overload
    def __getitem__(self, index: int) -> Key: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Key]: ...

    def __getitem__(self, index: int | slice) -> Key | Sequence[Key]:
        """Return a key, or several."""
        if isinstance(index, slice):
            return tuple(self[each] for each in range(len(self))[index])
        place = range(len(self))[index]
        return self._others.get(place) or create_plain_key(self._get_digest(place).hex(), self._get_name(place))

    def __eq__(self, other: object) -> bool:
        """Return whether the keys and their order are equal."""
        if isinstance(other, KeyList):
            are_equal = self.digests == other.digests and self.names == other.names
            return are_equal and self._others == other._others
        return isinstance(other, tuple) and tuple(self) == other

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        """Return the keys in the form of a tuple."""
        return repr(tuple(self))

    def _get_digest(self, place: int) -> bytes:
        begin = self._first + place * DIGEST_BYTES
        return self._digests[begin : begin + DIGEST_BYTES]

    def _get_name(self, place: int) -> str:
        return self._names[self._ends[place] + 1 : self._ends[place + 1]].decode()

    @classmethod
    def from_keys(cls, keys: Sequence[Key]) -> "KeyList":
        """Return keys in this form."""
        if isinstance(keys, cls):
            return keys
        digests = bytes.fromhex("".join([key.sha256 for key in keys]))
        others = {place: key for place, key in enumerate(keys) if not key.model_fields_set <= PLAIN_KEY}
        return cls(digests, [key.customer for key in keys], others)

    def move_to(self, block: mmap, ends: Sequence[int], digests: slice) -> None:
        """Use the equal content of a block from now on, so that it takes memory once. `ends` and `digests` are the
        places in it.
        """
        self._names, self._ends = block, ends
        self._digests, self._first = block, digests.start

    def list_others(self) -> ItemsView[int, Key]:
        """Return each key that has further settings, with its index."""
        return self._others.items()

    def list_digests(self) -> list[bytes]:
        """Return the SHA-256 of each key."""
        return [self._get_digest(place) for place in range(len(self))]

    def find_digests(self, customer: str) -> Iterator[bytes]:
        """Yield the SHA-256 of each key of a customer."""
        name = f"\n{customer}\n".encode()
        end = self._ends[-1] + 1
        place = self._names.find(name, self._ends[0], end)
        while place >= 0:
            yield self._get_digest(bisect_right(self._ends, place) - 1)
            place = self._names.find(name, place + 1, end)


def create_plain_key(digest: str, customer: str) -> Key:
    """Create a key with nothing but these two, which are known to be valid."""
    key = Key.__new__(Key)
    # As pydantic's `model_construct` does, which takes five times as long.
    object.__setattr__(key, "__dict__", {**PLAIN_EXAMPLE.__dict__, "sha256": digest, "customer": customer})
    object.__setattr__(key, "__pydantic_fields_set__", PLAIN_KEY)
    object.__setattr__(key, "__pydantic_extra__", None)
    object.__setattr__(key, "__pydantic_private__", None)
    return key


@written(lambda inner: inner)
def read_keys(value: object, read: ValidatorFunctionWrapHandler) -> object:
    """Read keys. Those with nothing but a digest and a customer are read here, in a fifth of the time."""
    if not isinstance(value, Items) or not any(type(each) is FlatTable for each in value):
        return read(value)
    plain = [_read_plain_key(each) for each in value]
    others: dict[int, Key] = {}
    if not all(plain):
        # They keep their places in the list, for errors.
        keys = read([PLAIN_EXAMPLE if pair else each for pair, each in zip(plain, value, strict=True)])
        others = {place: key for place, key in enumerate(keys) if not plain[place]}
    pairs = [pair or (others[place].sha256, others[place].customer) for place, pair in enumerate(plain)]
    return KeyList(bytes.fromhex("".join([digest for digest, _ in pairs])), [name for _, name in pairs], others)


def _read_plain_key(table: Value) -> tuple[str, str] | None:
    """Return the digest and the customer of a mapping that is a key with only these; None if it has a fault."""
    if not isinstance(table, FlatTable) or table.keys() != PLAIN_KEY:
        return None
    digest, customer = table["sha256"], table["customer"]
    assert isinstance(digest, str)
    assert isinstance(customer, str)
    if not LOWER_DIGEST.fullmatch(digest) or digest == parsers.NOTHING_DIGEST or not parsers.NAME.fullmatch(customer):
        return None
    return digest, customer
