"""Lines of the directory: a customer with its keys, or a flag, as JSON. They are pushed, stored and looked up."""

from collections.abc import Iterable
from functools import lru_cache
from typing import Any, NamedTuple

import orjson

from edgeproxy.base.json_values import JsonObject
from edgeproxy.config.customers import Customer, DirectoryKey, Flag, Key, Subscriber

FREE = "billing-stopped"
"""The flag for edges while charges are stopped. It suspends caps in money and spent credits. The name is reserved."""

SUBSCRIBERS_MAX = 1024
"""Cached customers with different settings."""


class Document(NamedTuple):
    """A customer as a line of the directory. The texts are JSON."""

    name: str
    tier: str
    customer: str | None
    """The customer's settings; None: the customer was deleted."""
    keys: dict[bytes, str]
    """The settings of each key, by its SHA-256."""


class FlagDocument(NamedTuple):
    """A flag as a line of the directory."""

    name: str
    flag: str
    """The flag's settings, in JSON."""


class KeyOwner(NamedTuple):
    """The owner of a key found in the directory: the customer's name, and the settings of customer and key as JSON."""

    name: str
    customer: str
    key: str
    residency: str = ""
    """The residency whose directory has the customer. Empty for the edge's own and only residency."""


def render_line(name: str, customer: Customer, keys: Iterable[Key]) -> bytes:
    """Write the line of a customer with the keys."""
    customer_fields = customer.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    return _encode_line(
        {"name": name, "customer": customer_fields, "keys": {key.sha256: _dump_key(key) for key in keys}}
    )


def _dump_key(key: Key) -> JsonObject:
    fields: JsonObject = key.model_dump(mode="json", exclude={"sha256", "customer"}, exclude_defaults=True)
    return fields if key.scopes is None else {**fields, "scopes": sorted(key.scopes)}


def render_removal(name: str) -> bytes:
    """Write the line that removes a customer."""
    return _encode_line({"name": name})


def render_flag_line(name: str, flag: Flag) -> bytes:
    """Write the line of a flag."""
    return _encode_line({"flag": name, "said": flag.model_dump(mode="json", exclude_defaults=True)})


def _encode_line(document: JsonObject) -> bytes:
    # The copy is needed because the result of orjson keeps its 4 KiB buffer alive.
    return bytes(memoryview(orjson.dumps(document, option=orjson.OPT_SORT_KEYS)))


def parse_line(line: bytes) -> Document | FlagDocument:
    """Parse a line. Raises ValueError, LookupError, TypeError or AttributeError if it is invalid."""
    document = orjson.loads(line)
    if "flag" in document:
        return FlagDocument(document["flag"], orjson.dumps(document["said"]).decode())
    return _build_document(document)


def parse_document(line: bytes) -> Document:
    """Parse the line of a customer. Raises the errors of `parse_line`."""
    return _build_document(orjson.loads(line))


def _build_document(document: Any) -> Document:
    customer = document.get("customer")
    if customer is None:
        return Document(document["name"], "", None, {})
    keys = {bytes.fromhex(digest): orjson.dumps(key).decode() for digest, key in document["keys"].items()}
    return Document(document["name"], customer["tier"], orjson.dumps(customer).decode(), keys)


CUSTOMER_LOOKUP_PREFIX = b"customer "
"""Prefix of look-ups of customers by name. All other look-ups are digests of keys, with 32 bytes."""


def format_customer_lookup(name: str) -> bytes:
    """Format the look-up of a customer by name, for the supervisor. Its other look-ups are digests of keys."""
    return (CUSTOMER_LOOKUP_PREFIX + name.encode()).ljust(33)  # Its length differs from a digest's.


def parse_customer_lookup(digest: bytes) -> str | None:
    """Return the customer that a look-up names. None: it is the look-up of a key."""
    return (
        digest[len(CUSTOMER_LOOKUP_PREFIX) :].decode().rstrip()
        if len(digest) != 32 and digest.startswith(CUSTOMER_LOOKUP_PREFIX)
        else None
    )


@lru_cache(SUBSCRIBERS_MAX)
def _parse_subscriber(content: str) -> Subscriber:
    return Subscriber.model_validate_json(content)


def parse_customer(content: str, at: float) -> Subscriber:
    """Parse the customer of a document or an owner. A raise of limits that is over at Unix second `at` is dropped.

    Customers with equal settings share one object, so an edge computes their terms once. Raises ValueError if this
    version does not understand it.
    """
    customer = _parse_subscriber(content)
    if customer.raised is not None and customer.raised.ends_at <= at:
        return customer.model_copy(update={"raised": None})
    return customer


def find_raise_end(content: str) -> float | None:
    """Return the Unix second of the end of a customer's raise of limits, or None."""
    if '"raised":' not in content:
        return None
    try:
        raised = Subscriber.model_validate_json(content).raised
    except ValueError:
        return None  # `parse_customer` raises this error too, so requests are refused.
    return None if raised is None else raised.ends_at


def find_next_residency(content: str) -> str | None:
    """Return the new residency of a customer that has moved, or None."""
    if '"moved":' not in content:
        return None
    try:
        return Subscriber.model_validate_json(content).moved
    except ValueError:
        return None  # `parse_customer` raises this error too, so requests are refused.


def parse_flag(content: str) -> Flag:
    """Parse a flag. Raises ValueError if this version does not understand it."""
    return Flag.model_validate_json(content)


def parse_key(owner: KeyOwner, digest: bytes) -> DirectoryKey:
    """Parse the key of this owner. Raises ValueError if this version does not understand it."""
    return DirectoryKey.model_validate({"sha256": digest.hex(), "customer": owner.name, **orjson.loads(owner.key)})


class KnownCustomer(NamedTuple):
    """A customer of the files or the directory, with the SHA-256 of each key."""

    name: str
    customer: Customer
    keys: list[bytes]
