"""Sign-in with OpenID Connect in collector.yaml: the trusted issuers, and the roles of people."""

from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field

from edgeproxy.config import addresses
from edgeproxy.config.forms import build_text, written
from edgeproxy.config.part import Part
from edgeproxy.config.units import format_value, read_text, value_error

AN_ISSUER = "https://HOST, as the issuer's tokens have it in `iss`"


@written(build_text("URL", r"https?://.+", "https://login.example.com"))
def read_issuer(value: object) -> str:
    """Read the URL of an issuer, exactly as in its tokens."""
    url = read_text(value, AN_ISSUER)
    try:
        parts = urlsplit(url)
    except ValueError:
        raise value_error(f"{format_value(url)} is not a URL", AN_ISSUER) from None
    if parts.scheme not in ("https", "http") or not parts.hostname or parts.query or parts.fragment:
        raise value_error(f"{format_value(url)} is not the URL of an issuer", AN_ISSUER)
    if parts.scheme == "http" and not addresses.is_loopback(parts.hostname):
        raise value_error(f"{format_value(url)} is reached in the clear", "write https://")
    return url


@written(build_text("text", r"[\s\S]*\S[\s\S]*"))
def read_word(value: object) -> str:
    """Read a non-empty text."""
    word = read_text(value, "one text")
    if not word.strip():
        raise value_error("is empty", "one text")
    return word


Word = Annotated[str, BeforeValidator(read_word)]
Words = tuple[Word, ...]

FACTOR_SECONDS_MAX = 600
"""Seconds after a sign-in with a second factor that permit sensitive actions."""
LEEWAY_SECONDS = 30.0
"""Maximum difference of an issuer's clock, in seconds."""
Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
"""Signatures with a public key, which cannot create tokens. `none` and HMAC are excluded."""


class OperatorRoles(Part):
    """Values of a claim that give operators their roles."""

    claim: Word = Field(default="groups", description="Claim of the token: a text, or a list of them.")
    admin: Words = Field(default=(), description="Reads and changes everything.")
    billing: Words = Field(default=(), description="Reads everything, and changes what concerns money.")
    support: Words = Field(default=(), description="Reads everything, pauses customers, revokes and rotates keys.")
    read: Words = Field(default=(), description="Reads everything.")


class SecondFactor(Part):
    """Evidence of a second factor in a token. One value is enough."""

    amr: Words = Field(default=("mfa",), description="Values of the claim `amr` (RFC 8176).")
    acr: Words = Field(default=(), description="Values of the claim `acr`.")


class Operators(Part):
    """Operators, who sign in at an issuer of OpenID Connect."""

    issuer: Annotated[str, BeforeValidator(read_issuer)] = Field(
        description="Issuer: the `iss` of tokens. Its `/.well-known/openid-configuration` leads to its keys."
    )
    audience: Word = Field(description="Audience of the tokens: their `aud`.")
    roles: OperatorRoles = Field(description="Values of a claim that give operators their roles.")
    algorithms: Annotated[tuple[Algorithm, ...], Field(min_length=1)] = Field(
        default=("RS256", "ES256"), description="Signature algorithms of tokens."
    )
    second_factor: SecondFactor = Field(
        default=SecondFactor(), description="Evidence of a second factor. Sensitive actions are refused without it."
    )


def is_factor_recent(factor_at: float | None, now: float) -> bool:
    """Return whether the sign-in with a second factor at this Unix second permits sensitive actions.

    None: there was no second factor. A time in the future does not count, because it would be valid for too long.
    """
    return factor_at is not None and -LEEWAY_SECONDS <= now - factor_at <= FACTOR_SECONDS_MAX
