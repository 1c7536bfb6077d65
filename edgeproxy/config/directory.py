"""What the directory says of a customer with the keys, or of a flag: a line of JSON, as it is pushed, kept and looked
up.
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any, NamedTuple

import orjson

from edgeproxy.config.models import Customer, Flag, Key, Subscriber, Written

FREE = "billing-stopped"
"""The flag that edges are told of while nobody is charged: caps in money and spent credits hold nobody then. No other
flag has this name."""


class Document(NamedTuple):
    """A customer as a line of the directory describes it. The texts are JSON."""

    name: str
    tier: str
    customer: str | None
    """What the file says under the name; None: there is no such customer any more."""
    keys: dict[bytes, str]
    """By the SHA-256 of each key, what the file says of it."""


class FlagDocument(NamedTuple):
    """A flag as a line of the directory describes it."""

    name: str
    said: str
    """What the file says under the name, in JSON."""


class KeyOwner(NamedTuple):
    """Whose a key is that was looked up in the directory: the customer's name, and what is said of both, in JSON."""

    name: str
    customer: str
    key: str


def lines(settings: Written) -> dict[str, bytes]:
    """Write a line for each customer with the keys. Equal customers have equal bytes."""
    keys: dict[str, list[Key]] = defaultdict(list)
    for key in settings.keys:
        keys[key.customer].append(key)
    return {name: line(name, customer, keys.pop(name, ())) for name, customer in settings.customers.items()}


def line(name: str, customer: Customer, keys: Iterable[Key]) -> bytes:
    """Write the line of a customer with the keys."""
    said = customer.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    return _line({"name": name, "customer": said, "keys": {key.sha256: _of_key(key) for key in keys}})


def _of_key(key: Key) -> dict[str, Any]:
    said = key.model_dump(mode="json", exclude={"sha256", "customer"}, exclude_defaults=True)
    if "scopes" in said:
        said["scopes"] = sorted(said["scopes"])
    return said


def removed(name: str) -> bytes:
    """Write the line that removes a customer."""
    return _line({"name": name})


def flag_line(name: str, flag: Flag) -> bytes:
    """Write the line of a flag."""
    return _line({"flag": name, "said": flag.model_dump(mode="json", exclude_defaults=True)})


def _line(said: dict[str, Any]) -> bytes:
    # A copy, as what orjson gives holds on to the 4 KiB that it was written in.
    return bytes(memoryview(orjson.dumps(said, option=orjson.OPT_SORT_KEYS)))


def read_line(line: bytes) -> Document | FlagDocument:
    """Read a line. Raises ValueError, LookupError, TypeError or AttributeError where it is none."""
    said = orjson.loads(line)
    if "flag" in said:
        return FlagDocument(said["flag"], orjson.dumps(said["said"]).decode())
    return _document(said)


def read_document(line: bytes) -> Document:
    """Read the line of a customer. Raises as `read_line`."""
    return _document(orjson.loads(line))


def _document(said: dict[str, Any]) -> Document:
    customer = said.get("customer")
    if customer is None:
        return Document(said["name"], "", None, {})
    keys = {bytes.fromhex(digest): orjson.dumps(key).decode() for digest, key in said["keys"].items()}
    return Document(said["name"], customer["tier"], orjson.dumps(customer).decode(), keys)


ASKED = b"customer "
"""What a look-up begins with that is for a customer by name, and not for a key by its digest of 32 bytes."""


def customer_asked(name: str) -> bytes:
    """What the supervisor is asked for a customer of this name, where it is asked for digests."""
    return (ASKED + name.encode()).ljust(33)  # Never as long as a digest.


def name_asked(digest: bytes) -> str | None:
    """The customer that is asked for; None where it is a key."""
    return digest[len(ASKED) :].decode().rstrip() if len(digest) != 32 and digest.startswith(ASKED) else None


def customer_of(said: str) -> Subscriber:
    """Read the customer of a document, or of a person. Raises ValueError where this version does not understand it."""
    return Subscriber.model_validate_json(said)


def flag_of(said: str) -> Flag:
    """Read a flag. Raises ValueError where this version does not understand it."""
    return Flag.model_validate_json(said)


def key_of(person: KeyOwner, digest: bytes) -> Key:
    """Read the key by which a person was found. Raises ValueError where this version does not understand it."""
    return Key.model_validate({"sha256": digest.hex(), "customer": person.name, **orjson.loads(person.key)})


class KnownCustomer(NamedTuple):
    """A customer of the files or the directory, with the SHA-256 of each key."""

    name: str
    customer: Customer
    keys: list[bytes]
