"""Tokens that identify callers, as operators write them: only the SHA-256, never the secret."""

from typing import Annotated

from pydantic import BeforeValidator, Field

from edgeproxy.config import parsers, units
from edgeproxy.config.forms import build_any_of, build_text, written
from edgeproxy.config.parsers import DIGEST_FORM
from edgeproxy.config.part import Part
from edgeproxy.config.units import value_error

A_DIGEST = "64 hex digits, the SHA-256 of the token: printf %s TOKEN | sha256sum"
PAIR = f"{parsers.NAME.pattern}:{parsers.DIGEST.pattern}"
PAIRS = build_text("text `NAME:SHA256 …`", f"|{PAIR}( +{PAIR})*")
A_PAIR = "NAME:SHA256, and spaces between several"


@written(lambda _: build_any_of(DIGEST_FORM, {"type": "array", "items": DIGEST_FORM, "minItems": 1}))
def read_digests(value: object) -> tuple[str, ...]:
    """Read the SHA-256 of a token, or a list of several while one secret replaces another."""
    given = value if isinstance(value, list | tuple) else [value]
    if not given:
        raise value_error("is empty", A_DIGEST)
    return tuple([parsers.read_digest(one, A_DIGEST) for one in given])


@written(lambda inner: build_any_of(PAIRS, inner), lambda _: None)
def read_pairs(value: object) -> object:
    """Read tokens in one text, as in a variable of the environment: `NAME:SHA256 NAME:SHA256`.

    Errors do not show invalid pairs, because these may be secrets.
    """
    if not isinstance(value, str):
        return value
    pairs = [pair.partition(":") for pair in value.split()]
    if not all(colon and parsers.NAME.fullmatch(name) for name, colon, _ in pairs):
        raise value_error("has a token without a name", A_PAIR)
    return [{"name": name, "sha256": digest} for name, _, digest in pairs]


class AdminToken(Part):
    """A token of the admin listener. Holders send `Authorization: Bearer TOKEN`."""

    name: Annotated[str, BeforeValidator(parsers.read_name)] = Field(description="Name of the holder in the log.")
    sha256: Annotated[tuple[str, ...], BeforeValidator(read_digests)] = Field(
        description="SHA-256 of the token: `printf %s TOKEN | sha256sum`. Write two while one replaces the other."
    )
    expires: Annotated[float, BeforeValidator(units.read_moment)] | None = Field(
        default=None, description="End of the token: a date (its beginning in UTC) or an RFC 3339 time."
    )

    @property
    def label(self) -> str:
        """The token's name."""
        return self.name
