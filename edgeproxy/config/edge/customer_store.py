"""The customers of a configuration as a worker has them: each customer and key as its text, until it is looked up.

A hundred thousand keys and their customers take 40 MB, a fifth of what their models would, and the garbage collector
has nothing of them to go through. Most of them differ in the name alone: what else is said of one is read once, however
many have the same. Who looks one up remembers it (edge/proxy/identity.py).
"""

import json
from collections import defaultdict
from collections.abc import Iterator
from functools import lru_cache

from edgeproxy.config.customers import Customer, Key
from edgeproxy.config.directory import render_line
from edgeproxy.config.edge.settings import EdgeFile, EdgeSettings

CUSTOMER, KEY = b"customer", b"key"
"""Kinds of lines; the name, or the digest and the name, follow, and then JSON."""

NOTHING_MORE = b"{}"
"""The JSON of a key of which there is no more to be said than whose it is."""

TERMS_MAX = 1024
"""Texts of customers, and of keys, whose meaning is remembered, and that are held once however often they come."""

NOBODY = "nobody"


class HeldKey:
    """A key of the files, as a worker has it: whose it is, and terms that other keys may share.

    The terms are a Key too, of nobody.
    """

    __slots__ = ("customer", "digest", "terms")

    def __init__(self, digest: bytes, customer: str, terms: Key) -> None:
        self.digest, self.customer, self.terms = digest, customer, terms


@lru_cache(TERMS_MAX)
def read_terms(content: bytes) -> Key:
    """Read what is said of a key beside whose it is."""
    return Key.model_validate({"sha256": "0" * 64, "customer": NOBODY, **json.loads(content)})


@lru_cache(TERMS_MAX)
def read_customer(content: bytes) -> Customer:
    """Read what is said of a customer: the same object for all of whom the same is said."""
    return Customer.model_validate_json(content)


class Customers:
    """Customers by name, and keys by the SHA-256 of them. Made whole of the lines that `dump_customers` gives."""

    def __init__(self) -> None:
        self._customers: dict[bytes, bytes] = {}
        self._keys: dict[bytes, bytes] = {}
        """The name of the customer, and where there is more to be said, a space and JSON."""
        self._texts: dict[bytes, bytes] = {}

    def __len__(self) -> int:
        """Count the customers and keys."""
        return len(self._customers) + len(self._keys)

    def add(self, line: bytes) -> None:
        """Take in one line."""
        kind, name, content = line.split(b" ", 2)
        if kind == KEY:
            self._keys[bytes.fromhex(name.decode())] = content.removesuffix(b" " + NOTHING_MORE)
        elif len(self._texts) < TERMS_MAX:
            self._customers[name] = self._texts.setdefault(content, content)
        else:
            self._customers[name] = self._texts.get(content, content)

    def find_key(self, digest: bytes) -> HeldKey | None:
        """Find the key with this SHA-256; None where nobody has it."""
        content = self._keys.get(digest)
        if content is None:
            return None
        customer, _, more = content.partition(b" ")
        return HeldKey(digest, customer.decode(), read_terms(more or NOTHING_MORE))

    def has_customer(self, name: str) -> bool:
        """Return whether there is a customer of this name."""
        return name.encode() in self._customers

    def get_customer(self, name: str) -> Customer:
        """Find the customer of this name, which a key names."""
        return read_customer(self._customers[name.encode()])


def dump_customers(settings: EdgeSettings) -> Iterator[bytes]:
    """Write all customers and keys as lines."""
    for name, customer in settings.customers.items():
        yield b"%b %b %b" % (CUSTOMER, name.encode(), _dump_part(customer))
    for key in settings.keys:
        yield b"%b %b %b %b" % (KEY, key.sha256.encode(), key.customer.encode(), _dump_part(key))


def _dump_part(part: Customer | Key) -> bytes:
    whose = {"sha256", "customer"} if isinstance(part, Key) else None
    return part.model_dump_json(by_alias=True, exclude=whose, exclude_defaults=True).encode()


def render_lines(settings: EdgeFile) -> dict[str, bytes]:
    """Write a line for each customer with the keys. Equal customers have equal bytes."""
    keys: dict[str, list[Key]] = defaultdict(list)
    for key in settings.keys:
        keys[key.customer].append(key)
    return {name: render_line(name, customer, keys.pop(name, ())) for name, customer in settings.customers.items()}
