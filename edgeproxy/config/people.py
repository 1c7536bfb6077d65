"""The people of a configuration as a worker has them: each customer and key as its text, until somebody asks for it.

A hundred thousand keys and their customers take 40 MB, a fifth of what their models would, and the garbage collector
has nothing of them to go through. Who asks for one remembers what it got (proxy/identity.py).
"""

import json
from collections import defaultdict
from collections.abc import Iterator
from typing import Any, NamedTuple

import orjson

from edgeproxy.config.models import Customer, Key, Settings, Written

CUSTOMER, KEY = b"customer", b"key"
"""What a line is of; then come the name or the digest, and JSON of what there is to say."""


class People:
    """Customers by name, and keys by the SHA-256 of them. Made whole of the lines that `dump` gives."""

    def __init__(self) -> None:
        self._customers: dict[bytes, bytes] = {}
        self._keys: dict[bytes, bytes] = {}

    def __len__(self) -> int:
        """How many customers and keys there are."""
        return len(self._customers) + len(self._keys)

    def add(self, line: bytes) -> None:
        """Take in one line."""
        kind, name, said = line.split(b" ", 2)
        if kind == KEY:
            self._keys[bytes.fromhex(name.decode())] = said
        else:
            self._customers[name] = said

    def key(self, digest: bytes) -> Key | None:
        """The key with this SHA-256; None where nobody has it."""
        said = self._keys.get(digest)
        return None if said is None else Key.model_validate({"sha256": digest.hex(), **json.loads(said)})

    def has(self, name: str) -> bool:
        """Whether there is a customer of this name."""
        return name.encode() in self._customers

    def customer(self, name: str) -> Customer:
        """The customer of this name, whom a key names."""
        return Customer.model_validate_json(self._customers[name.encode()])


def dump(settings: Settings) -> Iterator[bytes]:
    """The lines of all customers and keys."""
    for name, customer in settings.customers.items():
        yield b"%b %b %b" % (CUSTOMER, name.encode(), _said(customer))
    for key in settings.keys:
        yield b"%b %b %b" % (KEY, key.sha256.encode(), _said(key))


def _said(part: Customer | Key) -> bytes:
    return part.model_dump_json(by_alias=True, exclude={"sha256"}, exclude_defaults=True).encode()


# ---- the directory: people who are in no file of the edge


class Document(NamedTuple):
    """What a line of the directory says of a customer. The texts are JSON."""

    name: str
    tier: str
    customer: str | None
    """What the file says under the name; None: there is no such customer any more."""
    keys: dict[bytes, str]
    """By the SHA-256 of each key, what the file says of it."""


class Person(NamedTuple):
    """Whose a key is that was looked up in the directory: the customer's name, and what is said of both, in JSON."""

    name: str
    customer: str
    key: str


def lines(settings: Written) -> dict[str, bytes]:
    """The line of each customer in the directory, with the keys. What is said alike has the same bytes."""
    keys: dict[str, list[Key]] = defaultdict(list)
    for key in settings.keys:
        keys[key.customer].append(key)
    made = {}
    for name, customer in settings.customers.items():
        said = customer.model_dump(mode="json", by_alias=True, exclude_defaults=True)
        line = {"name": name, "customer": said, "keys": {key.sha256: _of_key(key) for key in keys.pop(name, ())}}
        made[name] = _line(line)
    return made


def _of_key(key: Key) -> dict[str, Any]:
    said = key.model_dump(mode="json", exclude={"sha256", "customer"}, exclude_defaults=True)
    if "scopes" in said:
        said["scopes"] = sorted(said["scopes"])
    return said


def removed(name: str) -> bytes:
    """The line by which a customer is gone."""
    return _line({"name": name})


def _line(said: dict[str, Any]) -> bytes:
    # A copy, as what orjson gives holds on to the 4 KiB that it was written in.
    return bytes(memoryview(orjson.dumps(said, option=orjson.OPT_SORT_KEYS)))


def read_line(line: bytes) -> Document:
    """What a line says; raises ValueError, LookupError, TypeError or AttributeError where it is none."""
    said = orjson.loads(line)
    customer = said.get("customer")
    if customer is None:
        return Document(said["name"], "", None, {})
    keys = {bytes.fromhex(digest): orjson.dumps(key).decode() for digest, key in said["keys"].items()}
    return Document(said["name"], customer["tier"], orjson.dumps(customer).decode(), keys)


def customer_of(said: str) -> Customer:
    """The customer of a document, or of a person; raises ValueError where this version does not understand it."""
    return Customer.model_validate_json(said)


def key_of(person: Person, digest: bytes) -> Key:
    """The key by which a person was found; raises ValueError where this version does not understand it."""
    return Key.model_validate({"sha256": digest.hex(), "customer": person.name, **orjson.loads(person.key)})
