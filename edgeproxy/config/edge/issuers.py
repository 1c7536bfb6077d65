"""Settings of those who issue tokens (JWT) for customers."""

from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field

from edgeproxy.config import addresses
from edgeproxy.config.part import Part
from edgeproxy.config.units import format_value, read_text, value_error

Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
"""Of public keys alone: who can check a token must not be able to make one."""
A_JWKS = "https://HOST/PATH, http:// of this host, or a file"
AN_AUTH = "required, optional, none, key, jwt, certificate, or a list such as [key, jwt]"
TAKEN = ("key", "jwt", "certificate")
"""What a list may have of what a route takes."""


def read_jwks(value: object) -> str:
    """Read where an issuer's public keys are."""
    where = read_text(value, A_JWKS)
    scheme, separator, _ = where.partition("://")
    if separator and (
        scheme not in ("http", "https")
        or not urlsplit(where).hostname
        or (scheme == "http" and not addresses.is_local_url(where))
    ):
        raise value_error(f"{format_value(where)} is not where keys can be had safely", A_JWKS)
    return where


def read_texts(value: object) -> object:
    """Read a list of texts, of which a single one may stand alone."""
    return (value,) if isinstance(value, str) else value


def read_auth(value: object) -> object:
    """Read what a route demands: a word, or a list of what it takes."""
    if isinstance(value, list | tuple):
        if not value or not all(one in TAKEN for one in value):
            raise value_error("is no list of what is taken", AN_AUTH)
        value = " or ".join(one for one in TAKEN if one in value)
    return "required" if value == "key" else value


class Issuer(Part):
    """Who issues tokens that name a customer."""

    issuer: Annotated[str, Field(min_length=1)]
    """The claim `iss` of the tokens."""
    jwks: Annotated[str, BeforeValidator(read_jwks)]
    """Where the public keys are, as a JWK Set: a URL, or a file."""
    audiences: Annotated[tuple[str, ...], Field(min_length=1), BeforeValidator(read_texts)]
    """What the claim `aud` must name: one of these."""
    algorithms: Annotated[tuple[Algorithm, ...], Field(min_length=1), BeforeValidator(read_texts)] = ("RS256", "ES256")
    """How tokens may be signed."""
    customer: Annotated[str, Field(min_length=1)] = "sub"
    """The claim with the customer's name."""
    tier: str | None = None
    """The claim with the tier of customers who are neither in the files nor in the directory; by default they need to
    be there."""
    scopes: str | None = "scope"
    """The claim with the scopes: a text with spaces between them, or a list."""
