"""A worker's customers and keys: packed as the supervisor sent them until one is looked up.

A hundred thousand keys and their customers take 7 MB: one block, which supervisor and workers can share. Most differ
only in name, so equal other settings are one text and parsed once. The caller of a look-up caches it
(edge/proxy/routing/identity.py).
"""

import json
from array import array
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import accumulate, pairwise
from mmap import mmap
from typing import NamedTuple, Protocol
from zlib import crc32

import msgspec

from edgeproxy.base.sealed_memory import NO_MEMORY, MemoryReceiver, SealedMemory
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


class HeldKey(msgspec.Struct, frozen=True, gc=False):
    """A key by its SHA-256: see CustomerKey. A struct is created in 0.4 of a named tuple's time."""

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


NUMBER_BYTES = array("I").itemsize
"""The bytes of a number in the block."""

Block = bytes | mmap
"""The block: in the message, or in memory that processes share."""


class PackedCustomers(msgspec.Struct, array_like=True):
    """All customers and keys in the message to a worker."""

    sizes: list[int]
    """The bytes of each section of the block, in the order of `Sections`."""
    term_texts: list[int]
    """The number of the text for each of the different customers."""
    texts: list[bytes]
    """Settings in JSON."""
    block: bytes
    """The block; empty if it is in the memory of this `number`."""
    number: int = 0


class Sections(NamedTuple):
    """The sections of a block. Numbers are of 32 bits, and places are those in the block."""

    names: slice
    """The names of all customers, each between two line feeds. They are first, so their places are those in them."""
    owners: slice
    """The customer of each key, like `names`; empty if equal to them, as with one key for each customer."""
    padding: slice
    """None to three bytes, so that the numbers after them are aligned."""
    name_places: slice
    """The places of the line feeds in `names`."""
    name_slots: slice
    """The slots of the names' RowIndex."""
    terms: slice
    """The number of each customer among the different ones."""
    owner_places: slice
    """The places of the line feeds in `owners`."""
    key_slots: slice
    """The slots of the digests' RowIndex."""
    key_texts: slice
    """The number of each key's settings among the texts; empty if no key has settings."""
    digests: slice
    """The SHA-256 of each key."""


def locate_sections(sizes: Sequence[int]) -> Sections:
    """Return the sections of these sizes, one after another."""
    return Sections(*[slice(*each) for each in pairwise(accumulate(sizes, initial=0))])


def view_numbers(block: Block, section: slice) -> "Sequence[int]":
    """Return the numbers of a section, without a copy."""
    return memoryview(block)[section].cast("I")


class RowIndex:
    """Rows in one piece of memory, and their numbers by content. It takes 4 to 12 bytes for each row."""

    __slots__ = ("_data", "_gap", "_mask", "_places", "slots")

    def __init__(self, data: Block, places: Sequence[int], gap: int, slots: Sequence[int] | None = None) -> None:
        """Row n begins `gap` bytes after the n-th place, and ends at the next place. `slots` are those of an equal
        index, of any process.
        """
        self._data, self._places, self._gap = data, places, gap
        self.slots = self._fill_slots() if slots is None else slots
        self._mask = len(self.slots) - 1

    def _fill_slots(self) -> "array[int]":
        mask = (1 << (len(self) * 3 // 2).bit_length()) - 1
        slots = array("I", bytes(NUMBER_BYTES * (mask + 1)))
        for number in range(len(self)):
            # Not `hash`, which differs from process to process.
            slot = crc32(self.get_row(number)) & mask
            while slots[slot]:
                slot = slot + 1 & mask
            slots[slot] = number + 1
        return slots

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._places) - 1

    def get_row(self, number: int) -> bytes:
        """Return the content of a row."""
        return self._data[self._places[number] + self._gap : self._places[number + 1]]

    def find_number(self, row: bytes) -> int | None:
        """Return the number of the row with this content; None if there is none."""
        data, places, slots, gap = self._data, self._places, self.slots, self._gap
        slot = crc32(row) & self._mask
        while number := slots[slot]:
            if data[places[number - 1] + gap : places[number]] == row:
                return number - 1
            slot = slot + 1 & self._mask
        return None


class CustomerMap(Mapping[str, Customer]):
    """Customers by name in little memory: a hundred thousand of them take 3 MB, and as a dict 9 MB in small objects.

    A few such objects that live on keep the memory of all others that were needed to read a file.
    """

    __slots__ = ("_index", "_names", "_places", "numbers", "terms")

    def __init__(self, customers: Mapping[str, Customer]) -> None:
        self.terms = list({id(customer): customer for customer in customers.values()}.values())
        """The different customers. Most customers of a tier are one object."""
        numbers = {id(customer): number for number, customer in enumerate(self.terms)}
        self.numbers: Sequence[int] = array("I", [numbers[id(customer)] for customer in customers.values()])
        """For each name the number of its customer among the `terms`."""
        self._names: Block = pack_names(customers)
        self._places: Sequence[int] = list_line_feeds(self._names)
        self._index = RowIndex(self._names, self._places, 1)

    @classmethod
    def from_customers(cls, customers: Mapping[str, Customer]) -> "CustomerMap":
        """Return customers in this form."""
        return customers if isinstance(customers, cls) else cls(customers)

    def move_to(self, block: Block, sections: Sections) -> None:
        """Use the equal content of a block from now on, so that it takes memory once."""
        self.numbers = view_numbers(block, sections.terms)
        self._names, self._places = block, view_numbers(block, sections.name_places)
        self._index = RowIndex(block, self._places, 1, view_numbers(block, sections.name_slots))

    @property
    def packed_names(self) -> bytes:
        """The names, each between two line feeds."""
        return self._names[: self._places[-1] + 1]

    @property
    def name_places(self) -> Sequence[int]:
        """The places of the line feeds in these names."""
        return self._places

    @property
    def name_slots(self) -> Sequence[int]:
        """The slots of the names' RowIndex."""
        return self._index.slots

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
    """Customers by name, and keys by SHA-256, from `pack_customers`."""

    def __init__(self, dumped: bytes, memory: MemoryReceiver = NO_MEMORY) -> None:
        """`memory` has the block that is not in the message.

        Raises ValueError, or msgspec.DecodeError, if the message is no valid one.
        """
        packed = msgspec.msgpack.decode(dumped, type=PackedCustomers)
        block = packed.block or memory.take(packed.number)
        if sum(packed.sizes) != len(block) or len(packed.sizes) != len(Sections._fields):
            raise ValueError("the parts of the customers do not fit")
        at = locate_sections(packed.sizes)
        places, self._terms, name_slots, owner_places, key_slots, self._key_texts = [
            view_numbers(block, section)
            for section in (at.name_places, at.terms, at.name_slots, at.owner_places, at.key_slots, at.key_texts)
        ]
        self._texts, self._term_texts = packed.texts, packed.term_texts
        self._customers = RowIndex(block, places, 1, name_slots)
        digests = range(at.digests.start, at.digests.stop + DIGEST_BYTES, DIGEST_BYTES)
        self._keys = RowIndex(block, digests, 0, key_slots)
        self._shares_names = not owner_places
        """True if the n-th key is of the n-th customer."""
        self._block, self._owner_places = block, owner_places or places
        self._latest: tuple[bytes, int | None] = b"", None
        """The owner of the key that was found last, and its number: mostly the next one that is asked for."""
        lengths = len(self._customers), len(self._keys), len(self._key_texts) or len(self._keys)
        if lengths != (len(self._terms), len(self._owner_places) - 1, len(self._keys)):
            raise ValueError("the parts of the customers do not fit")

    def __len__(self) -> int:
        """Return the number of customers and keys."""
        return len(self._customers) + len(self._keys)

    def find_key(self, digest: bytes) -> HeldKey | None:
        """Return the key with this SHA-256, or None."""
        owner = self.find_owner(digest)
        return None if owner is None else HeldKey(digest, *owner)

    def find_owner(self, digest: bytes) -> tuple[bytes, Key] | None:
        """Return the `subject` and `terms` of the key with this SHA-256, or None."""
        number = self._keys.find_number(digest)
        if number is None:
            return None
        customer = self._block[self._owner_places[number] + 1 : self._owner_places[number + 1]]
        if self._shares_names:
            self._latest = customer, number
        text = self._key_texts[number] if self._key_texts else 0
        return customer, read_terms(self._texts[text])

    def has_customer(self, name: str) -> bool:
        """Return whether a customer of this name exists."""
        return self._customers.find_number(name.encode()) is not None

    def get_customer(self, name: str) -> Customer:
        """Return a customer by name. Raises KeyError if there is none."""
        return self.get_customer_of(name.encode())

    def get_customer_of(self, subject: bytes) -> Customer:
        """Return the customer of a key with this `subject`. Raises KeyError if there is none."""
        latest, number = self._latest
        if latest is not subject:
            number = self._customers.find_number(subject)
        if number is None:
            raise KeyError(subject)
        return read_customer(self._texts[self._term_texts[self._terms[number]]])


def pack_customers(settings: EdgeSettings) -> tuple[PackedCustomers, list[bytes]]:
    """Return all customers and keys as a message without its block, and the block's sections."""
    texts: dict[bytes, int] = {NOTHING_MORE: 0}
    customers = CustomerMap.from_customers(settings.customers)
    term_texts = [texts.setdefault(_dump_part(customer), len(texts)) for customer in customers.terms]
    keys = KeyList.from_keys(settings.keys)
    key_texts = array("I", bytes(NUMBER_BYTES * len(keys) if keys.list_others() else 0))
    for place, key in keys.list_others():
        key_texts[place] = texts.setdefault(_dump_part(key), len(texts))
    names, owners, digests = customers.packed_names, keys.names, keys.digests
    owner_places = array("I")
    if owners == names:
        owners = b""
    else:
        owner_places.extend([place + len(names) for place in list_line_feeds(owners)])
    digest_places = range(0, len(digests) + DIGEST_BYTES, DIGEST_BYTES)
    sections = [
        names,
        owners,
        bytes(-(len(names) + len(owners)) % NUMBER_BYTES),
        *[
            bytes(numbers)
            for numbers in (
                customers.name_places,
                customers.name_slots,
                customers.numbers,
                owner_places,
                RowIndex(digests, digest_places, 0).slots,
                key_texts,
            )
        ],
        digests,
    ]
    return PackedCustomers([len(section) for section in sections], term_texts, list(texts), b""), sections


def dump_customers(settings: EdgeSettings) -> bytes:
    """Return all customers and keys as a message with its block."""
    return _join_block(*pack_customers(settings))


def share_customers(settings: EdgeSettings) -> tuple[bytes, SealedMemory | None]:
    """Return all customers and keys as a message, and memory with its block, from which the settings are read too.

    The memory is None if the system has no such memory. Then the message has the block.
    """
    packed, sections = pack_customers(settings)
    try:
        memory = SealedMemory(sections)
        block = memory.map()
    except OSError:
        return _join_block(packed, sections), None
    packed.number, at = memory.number, locate_sections(packed.sizes)
    if isinstance(settings.customers, CustomerMap):
        settings.customers.move_to(block, at)
    if isinstance(settings.keys, KeyList):
        places = view_numbers(block, at.owner_places) or view_numbers(block, at.name_places)
        settings.keys.move_to(block, places, at.digests)
    return msgspec.msgpack.encode(packed), memory


def _join_block(packed: PackedCustomers, sections: list[bytes]) -> bytes:
    """Return the message with its block."""
    packed.block = b"".join(sections)
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
