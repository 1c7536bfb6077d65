"""Settings of the issuers of customers' tokens (JWT)."""

from typing import Annotated, Literal, get_args
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field

from edgeproxy.base.json_values import JsonObject
from edgeproxy.config import addresses, parsers
from edgeproxy.config.forms import build_any_of, build_text, build_words, written
from edgeproxy.config.part import Part
from edgeproxy.config.units import format_value, read_text, value_error

Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
"""Only algorithms with public keys: the key that verifies tokens must not be able to create them."""
A_JWKS = "https://HOST/PATH, http:// of this host, or a file"
AN_AUTH = "required, optional, none, key, jwt, certificate, a list such as [key, jwt], or {basic: FILE}"
RouteAuth = Literal[
    "required",
    "optional",
    "none",
    "jwt",
    "certificate",
    "key or jwt",
    "key or certificate",
    "jwt or certificate",
    "key or jwt or certificate",
]
"""Credentials that a route accepts, after reading."""
TAKEN = ("key", "jwt", "certificate")
"""Members of a list of credentials."""


@written(build_text("URL or file", r"\S+", "https://id.example.com/.well-known/jwks.json", "keys.jwks"))
def read_jwks(value: object) -> str:
    """Read the place of an issuer's public keys."""
    where = read_text(value, A_JWKS)
    scheme, separator, _ = where.partition("://")
    if separator and (
        scheme not in ("http", "https")
        or not urlsplit(where).hostname
        or (scheme == "http" and not addresses.is_local_url(where))
    ):
        raise value_error(f"{format_value(where)} is not where keys can be had safely", A_JWKS)
    return where


def _write_auth(inner: JsonObject) -> JsonObject:
    """Return the written form of `auth`. `inner` has the word and the mapping."""
    forms = inner["anyOf"]
    assert isinstance(forms, list)
    members: JsonObject = {"type": "array", "items": {"enum": list(TAKEN)}, "minItems": 1}
    return build_any_of(build_words("key", *get_args(RouteAuth)), members, forms[-1])


@written(_write_auth)
def read_auth(value: object) -> object:
    """Read the `auth` of a route: a word, a list of accepted credentials, or users with passwords."""
    if isinstance(value, list | tuple):
        if not value or not all(one in TAKEN for one in value):
            raise value_error("is no list of what is taken", AN_AUTH)
        value = " or ".join(one for one in TAKEN if one in value)
    return "required" if value == "key" else value


class Issuer(Part):
    """An issuer of tokens (JWT).

    ```yaml
    issuers:
      login:
        issuer: "https://id.example.com"
        jwks: "https://id.example.com/.well-known/jwks.json"
        audiences: [api]
        tier: plan
    ```
    """

    issuer: Annotated[str, Field(min_length=1)] = Field(description="Claim `iss` of the tokens.")
    jwks: Annotated[str, BeforeValidator(read_jwks)] = Field(
        description="JWK Set with the public keys: `https://`, `http://` on this host, or a file. The supervisor "
        "fetches it every minute, and keeps the last one if that fails."
    )
    audiences: Annotated[tuple[str, ...], Field(min_length=1), BeforeValidator(parsers.read_list)] = Field(
        description="Audiences. The claim `aud` must name one of them."
    )
    algorithms: Annotated[tuple[Algorithm, ...], Field(min_length=1), BeforeValidator(parsers.read_list)] = Field(
        default=("RS256", "ES256"), description="Signature algorithms of tokens."
    )
    customer: Annotated[str, Field(min_length=1)] = Field(
        default="sub",
        description="Claim with the customer's name. A value that is not a valid name, such as `auth0|5f7c`, [is "
        "turned into one](jwt.md#names).",
    )
    tier: str | None = Field(
        default=None,
        description="Claim with the tier, for customers who are neither in the files nor in the directory. By default "
        "customers must be there.",
    )
    scopes: str | None = Field(
        default="scope", description="Claim with the scopes: a text separated by spaces, or a list."
    )
