"""A worker's customers: each customer and each key is stored as text until it is looked up.

A hundred thousand keys and their customers take 40 MB, a fifth of the memory of their models, and the garbage collector
does not scan them. Most differ only in name, so equal other settings are parsed once. The caller of a look-up caches it
(edge/proxy/routing/identity.py).
"""

import json
from collections import defaultdict
from collections.abc import Iterator
from functools import lru_cache
from hashlib import sha256
from typing import Any

from edgeproxy.config.customers import PLAIN_KEY, Customer, Key
from edgeproxy.config.directory import render_line
from edgeproxy.config.edge.settings import EdgeFile, EdgeSettings
from edgeproxy.config.key_list import KeyList

CUSTOMER, KEY = b"customer", b"key"
"""Kinds of lines. The name, or the digest and the name, follow, and then JSON."""

NOTHING_MORE = b"{}"
"""The JSON of a key without further settings."""

TERMS_MAX = 1024
"""Maximum cached texts of customers and of keys. Each cached text is parsed and stored once."""

NOBODY = "nobody"


class HeldKey:
    """A key of the files in a worker: its customer, and terms that other keys may share.

    The terms are a Key too, with a placeholder for the customer.
    """

    __slots__ = ("_origin", "latest_binding", "subject", "terms")

    def __init__(self, origin: bytes, subject: bytes, terms: Key) -> None:
        """`origin` is the digest, and `subject` the customer's name."""
        self._origin, self.subject, self.terms = origin, subject, terms
        self.latest_binding: Any = None
        """The latest route binding, whose parts the next one shares (edge/proxy/routing/access.py)."""

    @property
    def customer(self) -> str:
        """The customer's name."""
        return self.subject.decode()

    @property
    def digest(self) -> bytes:
        """The SHA-256 of the key."""
        return self._origin


class HeldSecret(HeldKey):
    """A key whose holder has the key itself, so that its digest takes no memory."""

    __slots__ = ()

    @property
    def digest(self) -> bytes:
        """The SHA-256 of the key."""
        return sha256(self._origin).digest()


@lru_cache(TERMS_MAX)
def read_terms(content: bytes) -> Key:
    """Read the settings of a key except its customer."""
    return Key.model_validate({"sha256": "0" * 64, "customer": NOBODY, **json.loads(content)})


@lru_cache(TERMS_MAX)
def read_customer(content: bytes) -> Customer:
    """Read the settings of a customer. Customers with equal settings share one object."""
    return Customer.model_validate_json(content)


class Customers:
    """Customers by name, and keys by SHA-256. Built from the lines of `dump_customers`."""

    def __init__(self) -> None:
        self._customers: dict[bytes, bytes] = {}
        self._keys: dict[bytes, bytes] = {}
        """The name of the customer, followed by a space and JSON if there are further settings."""
        self._texts: dict[bytes, bytes] = {}

    def __len__(self) -> int:
        """Return the number of customers and keys."""
        return len(self._customers) + len(self._keys)

    def add(self, line: bytes) -> None:
        """Add one line."""
        kind, name, content = line.split(b" ", 2)
        if kind == KEY:
            self._keys[bytes.fromhex(name.decode())] = content.removesuffix(b" " + NOTHING_MORE)
        elif len(self._texts) < TERMS_MAX:
            self._customers[name] = self._texts.setdefault(content, content)
        else:
            self._customers[name] = self._texts.get(content, content)

    def find_key(self, digest: bytes, secret: bytes | None = None) -> HeldKey | None:
        """Return the key with this SHA-256, or None. `secret` is the key itself, if known."""
        content = self._keys.get(digest)
        if content is None:
            return None
        customer, _, more = content.partition(b" ")
        terms = read_terms(more or NOTHING_MORE)
        return HeldKey(digest, customer, terms) if secret is None else HeldSecret(secret, customer, terms)

    def has_customer(self, name: str) -> bool:
        """Return whether a customer of this name exists."""
        return name.encode() in self._customers

    def get_customer(self, name: str) -> Customer:
        """Return a customer by name."""
        return read_customer(self._customers[name.encode()])

    def get_customer_of(self, key: HeldKey) -> Customer:
        """Return the customer of a key."""
        return read_customer(self._customers[key.subject])


def dump_customers(settings: EdgeSettings) -> Iterator[bytes]:
    """Yield all customers and keys as lines."""
    contents: dict[int, bytes] = {}
    for name, customer in settings.customers.items():
        content = contents.get(id(customer))  # Most customers of a tier are one object.
        if content is None:
            content = contents[id(customer)] = _dump_part(customer)
        yield b"%b %b %b" % (CUSTOMER, name.encode(), content)
    keys = settings.keys
    parts = keys.list_parts() if isinstance(keys, KeyList) else ((key.sha256, key.customer, key) for key in keys)
    for digest, name, whole in parts:
        content = NOTHING_MORE if whole is None or whole.model_fields_set <= PLAIN_KEY else _dump_part(whole)
        yield b"%b %b %b %b" % (KEY, digest.encode(), name.encode(), content)


def _dump_part(part: Customer | Key) -> bytes:
    whose = {"sha256", "customer"} if isinstance(part, Key) else None
    return part.model_dump_json(by_alias=True, exclude=whose, exclude_defaults=True).encode()


def render_lines(settings: EdgeFile) -> dict[str, bytes]:
    """Return a line for each customer with its keys. Equal customers have equal bytes."""
    keys: dict[str, list[Key]] = defaultdict(list)
    for key in settings.keys:
        keys[key.customer].append(key)
    return {name: render_line(name, customer, keys.pop(name, ())) for name, customer in settings.customers.items()}
