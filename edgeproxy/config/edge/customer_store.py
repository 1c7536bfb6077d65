"""The customers of a configuration as a worker has them: each customer and key as its text, until it is looked up.

A hundred thousand keys and their customers take 40 MB, a fifth of what their models would, and the garbage collector
has nothing of them to go through. Who looks one up remembers it (edge/proxy/identity.py).
"""

import json
from collections import defaultdict
from collections.abc import Iterator

from edgeproxy.config.customers import Customer, Key
from edgeproxy.config.directory import render_line
from edgeproxy.config.edge.settings import EdgeFile, EdgeSettings

CUSTOMER, KEY = b"customer", b"key"
"""Kinds of lines; the name or the digest follows, and then JSON."""


class Customers:
    """Customers by name, and keys by the SHA-256 of them. Made whole of the lines that `dump_customers` gives."""

    def __init__(self) -> None:
        self._customers: dict[bytes, bytes] = {}
        self._keys: dict[bytes, bytes] = {}

    def __len__(self) -> int:
        """Count the customers and keys."""
        return len(self._customers) + len(self._keys)

    def add(self, line: bytes) -> None:
        """Take in one line."""
        kind, name, content = line.split(b" ", 2)
        if kind == KEY:
            self._keys[bytes.fromhex(name.decode())] = content
        else:
            self._customers[name] = content

    def find_key(self, digest: bytes) -> Key | None:
        """Find the key with this SHA-256; None where nobody has it."""
        content = self._keys.get(digest)
        return None if content is None else Key.model_validate({"sha256": digest.hex(), **json.loads(content)})

    def has_customer(self, name: str) -> bool:
        """Return whether there is a customer of this name."""
        return name.encode() in self._customers

    def get_customer(self, name: str) -> Customer:
        """Find the customer of this name, which a key names."""
        return Customer.model_validate_json(self._customers[name.encode()])


def dump_customers(settings: EdgeSettings) -> Iterator[bytes]:
    """Write all customers and keys as lines."""
    for name, customer in settings.customers.items():
        yield b"%b %b %b" % (CUSTOMER, name.encode(), _dump_part(customer))
    for key in settings.keys:
        yield b"%b %b %b" % (KEY, key.sha256.encode(), _dump_part(key))


def _dump_part(part: Customer | Key) -> bytes:
    return part.model_dump_json(by_alias=True, exclude={"sha256"}, exclude_defaults=True).encode()


def render_lines(settings: EdgeFile) -> dict[str, bytes]:
    """Write a line for each customer with the keys. Equal customers have equal bytes."""
    keys: dict[str, list[Key]] = defaultdict(list)
    for key in settings.keys:
        keys[key.customer].append(key)
    return {name: render_line(name, customer, keys.pop(name, ())) for name, customer in settings.customers.items()}
