"""Tokens by which callers are known, as operators write them: never the secret, only its SHA-256."""

from typing import Annotated

from pydantic import BeforeValidator

from edgeproxy.config import parsers, units
from edgeproxy.config.part import Part
from edgeproxy.config.units import value_error

A_DIGEST = "64 hex digits, the SHA-256 of the token: printf %s TOKEN | sha256sum"
A_PAIR = "NAME:SHA256, and spaces between several"


def read_digests(value: object) -> tuple[str, ...]:
    """Read the SHA-256 of a token, or a list of several while one secret replaces another."""
    given = value if isinstance(value, list | tuple) else [value]
    if not given:
        raise value_error("is empty", A_DIGEST)
    return tuple([parsers.read_digest(one, A_DIGEST) for one in given])


def read_pairs(value: object) -> object:
    """Read tokens that are one text, as a variable of the environment has them: `NAME:SHA256 NAME:SHA256`.

    Errors do not show what is no such pair: it may be a secret.
    """
    if not isinstance(value, str):
        return value
    pairs = [pair.partition(":") for pair in value.split()]
    if not all(colon and parsers.NAME.fullmatch(name) for name, colon, _ in pairs):
        raise value_error("has a token without a name", A_PAIR)
    return [{"name": name, "sha256": digest} for name, _, digest in pairs]


class AdminToken(Part):
    """Who may ask the admin listener at its address. Holders send `Authorization: Bearer TOKEN`."""

    name: Annotated[str, BeforeValidator(parsers.read_name)]
    """What the log calls the holder."""
    sha256: Annotated[tuple[str, ...], BeforeValidator(read_digests)]
    """The SHA-256 of the token in hex, or a list of several while one secret replaces another."""
    expires: Annotated[float, BeforeValidator(units.read_moment)] | None = None
    """When the token ends: a date (its beginning in UTC), or a time as in RFC 3339."""

    @property
    def label(self) -> str:
        """The token's name."""
        return self.name
