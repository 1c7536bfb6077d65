"""A worker's customers and keys: packed as the supervisor sent them until one is looked up.

A hundred thousand keys and their customers take 8 MB. Most differ only in name, so equal other settings are one text
and parsed once. The caller of a look-up caches it (edge/proxy/routing/identity.py).
"""

import json
from array import array
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple, Protocol

import msgspec

from edgeproxy.config.customers import Customer, Key
from edgeproxy.config.directory import render_line
from edgeproxy.config.edge.settings import EdgeFile, EdgeSettings
from edgeproxy.config.key_list import DIGEST_BYTES, KeyList, list_line_feeds, pack_names

NOTHING_MORE = b"{}"
"""The JSON of a key without further settings."""

TERMS_MAX = 1024
"""Maximum cached settings of customers and of keys. Their text is parsed once."""

NOBODY = "nobody"


class CustomerKey(Protocol):
    """A key of the files or of the directory, with terms that other keys may share.

    The terms are a Key too, with a placeholder for the customer.
    """

    @property
    def subject(self) -> bytes:
        """The customer's name."""

    @property
    def customer(self) -> str:
        """The customer's name, as text."""

    @property
    def terms(self) -> Key:
        """The settings of the key."""

    @property
    def digest(self) -> bytes:
        """The SHA-256 of the key."""


class HeldKey(NamedTuple):
    """A key by its SHA-256: see CustomerKey."""

    digest: bytes
    subject: bytes
    terms: Key

    @property
    def customer(self) -> str:
        """The customer's name, as text."""
        return self.subject.decode()


@lru_cache(TERMS_MAX)
def read_terms(content: bytes) -> Key:
    """Read the settings of a key except its customer."""
    return Key.model_validate({"sha256": "0" * 64, "customer": NOBODY, **json.loads(content)})


@lru_cache(TERMS_MAX)
def read_customer(content: bytes) -> Customer:
    """Read the settings of a customer. Customers with equal settings share one object."""
    return Customer.model_validate_json(content)


class PackedCustomers(msgspec.Struct, array_like=True):
    """All customers and keys in the message to a worker. Numbers are of 32 bits."""

    customers: bytes
    """The names, each between two line feeds."""
    customer_texts: bytes
    """The number of each customer's settings among the texts."""
    digests: bytes
    """The SHA-256 of each key."""
    owners: bytes
    """The customer of each key, like `customers`; empty if it is equal to that, as with one key for each customer."""
    key_texts: bytes
    """The number of each key's settings among the texts."""
    texts: list[bytes]
    """Settings in JSON."""


class RowIndex:
    """Rows in one piece of memory, and their numbers by content. It takes 4 to 12 bytes for each row."""

    __slots__ = ("_data", "_gap", "_mask", "_places", "_slots")

    def __init__(self, data: bytes, places: Sequence[int], gap: int) -> None:
        """Row n begins `gap` bytes after the n-th place, and ends at the next place."""
        self._data, self._places, self._gap = data, places, gap
        self._mask = (1 << (len(self) * 3 // 2).bit_length()) - 1
        slots = array("I", bytes(array("I").itemsize * (self._mask + 1)))
        for number in range(len(self)):
            slot = hash(self.get_row(number)) & self._mask
            while slots[slot]:
                slot = slot + 1 & self._mask
            slots[slot] = number + 1
        self._slots = slots

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._places) - 1

    def get_row(self, number: int) -> bytes:
        """Return the content of a row."""
        return self._data[self._places[number] + self._gap : self._places[number + 1]]

    def find_number(self, row: bytes) -> int | None:
        """Return the number of the row with this content; None if there is none."""
        data, places, slots, gap = self._data, self._places, self._slots, self._gap
        slot = hash(row) & self._mask
        while number := slots[slot]:
            if data[places[number - 1] + gap : places[number]] == row:
                return number - 1
            slot = slot + 1 & self._mask
        return None


class CustomerMap(Mapping[str, Customer]):
    """Customers by name in little memory: a hundred thousand of them take 3 MB, and as a dict 9 MB in small objects.

    A few such objects that live on keep the memory of all others that were needed to read a file.
    """

    __slots__ = ("_index", "numbers", "packed_names", "terms")

    def __init__(self, customers: Mapping[str, Customer]) -> None:
        self.terms = list({id(customer): customer for customer in customers.values()}.values())
        """The different customers. Most customers of a tier are one object."""
        numbers = {id(customer): number for number, customer in enumerate(self.terms)}
        self.numbers = array("I", [numbers[id(customer)] for customer in customers.values()])
        """For each name the number of its customer among the `terms`."""
        self.packed_names = pack_names(customers)
        self._index = RowIndex(self.packed_names, list_line_feeds(self.packed_names), 1)

    @classmethod
    def from_customers(cls, customers: Mapping[str, Customer]) -> "CustomerMap":
        """Return customers in this form."""
        return customers if isinstance(customers, cls) else cls(customers)

    def __len__(self) -> int:
        """Return the number of names."""
        return len(self.numbers)

    def __iter__(self) -> Iterator[str]:
        """Yield the names in their order."""
        return (self._index.get_row(number).decode() for number in range(len(self)))

    def __getitem__(self, name: str) -> Customer:
        """Return a customer. Raises KeyError if there is none."""
        number = self._index.find_number(name.encode())
        if number is None:
            raise KeyError(name)
        return self.terms[self.numbers[number]]

    def __eq__(self, other: object) -> bool:
        """Return whether both have equal customers under equal names, without an object for each if the names have the
        same order.
        """
        if not isinstance(other, CustomerMap) or self.packed_names != other.packed_names:
            return Mapping.__eq__(self, other)
        pairs = set(zip(self.numbers, other.numbers, strict=True))
        return all(self.terms[own] == other.terms[others] for own, others in pairs)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        """Return the customers in the form of a dict."""
        return repr(dict(self))


class Customers:
    """Customers by name, and keys by SHA-256, from `dump_customers`."""

    def __init__(self, dumped: bytes) -> None:
        """Raises ValueError, or msgspec.DecodeError, if the message is no valid one."""
        packed = msgspec.msgpack.decode(dumped, type=PackedCustomers)
        self._texts = packed.texts
        places = list_line_feeds(packed.customers)
        self._customers = RowIndex(packed.customers, places, 1)
        self._customer_texts = array("I", packed.customer_texts)
        digests = packed.digests
        self._keys = RowIndex(digests, range(0, len(digests) + DIGEST_BYTES, DIGEST_BYTES), 0)
        self._key_texts = array("I", packed.key_texts)
        self._names = packed.customers
        self._owners = packed.owners or packed.customers
        self._latest: tuple[bytes, int | None] = b"", None
        """The owner of the key that was found last, and its number: mostly the next one that is asked for."""
        self._owner_places = list_line_feeds(packed.owners) if packed.owners else places
        lengths = len(self._customers), len(self._keys), len(self._keys)
        if lengths != (len(self._customer_texts), len(self._key_texts), len(self._owner_places) - 1):
            raise ValueError("the parts of the customers do not fit")

    def __len__(self) -> int:
        """Return the number of customers and keys."""
        return len(self._customers) + len(self._keys)

    def find_key(self, digest: bytes) -> HeldKey | None:
        """Return the key with this SHA-256, or None."""
        number = self._keys.find_number(digest)
        if number is None:
            return None
        customer = self._owners[self._owner_places[number] + 1 : self._owner_places[number + 1]]
        if self._owners is self._names:
            self._latest = customer, number
        return HeldKey(digest, customer, read_terms(self._texts[self._key_texts[number]]))

    def has_customer(self, name: str) -> bool:
        """Return whether a customer of this name exists."""
        return self._customers.find_number(name.encode()) is not None

    def get_customer(self, name: str) -> Customer:
        """Return a customer by name. Raises KeyError if there is none."""
        return self._read_customer(name.encode())

    def get_customer_of(self, key: CustomerKey) -> Customer:
        """Return the customer of a key."""
        return self._read_customer(key.subject)

    def _read_customer(self, name: bytes) -> Customer:
        latest, number = self._latest
        if latest is not name:
            number = self._customers.find_number(name)
        if number is None:
            raise KeyError(name)
        return read_customer(self._texts[self._customer_texts[number]])


def dump_customers(settings: EdgeSettings) -> bytes:
    """Return all customers and keys as a message."""
    texts: dict[bytes, int] = {NOTHING_MORE: 0}
    packed_customers = CustomerMap.from_customers(settings.customers)
    terms = [texts.setdefault(_dump_part(customer), len(texts)) for customer in packed_customers.terms]
    keys = KeyList.from_keys(settings.keys)
    key_texts = array("I", bytes(array("I").itemsize * len(keys)))
    for place, key in keys.list_others():
        key_texts[place] = texts.setdefault(_dump_part(key), len(texts))
    customer_texts = array("I", [terms[number] for number in packed_customers.numbers])
    packed = PackedCustomers(
        packed_customers.packed_names,
        customer_texts.tobytes(),
        keys.digests,
        b"" if keys.names == packed_customers.packed_names else keys.names,
        key_texts.tobytes(),
        list(texts),
    )
    return msgspec.msgpack.encode(packed)


def _dump_part(part: Customer | Key) -> bytes:
    whose = {"sha256", "customer"} if isinstance(part, Key) else None
    return part.model_dump_json(by_alias=True, exclude=whose, exclude_defaults=True).encode()


def render_lines(settings: EdgeFile) -> dict[str, bytes]:
    """Return a line for each customer with its keys. Equal customers have equal bytes."""
    keys: dict[str, list[Key]] = defaultdict(list)
    for key in settings.keys:
        keys[key.customer].append(key)
    return {name: render_line(name, customer, keys.pop(name, ())) for name, customer in settings.customers.items()}
