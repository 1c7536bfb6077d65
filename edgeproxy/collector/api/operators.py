"""Operators: people who come with a token of their issuer (OpenID Connect), and what it says of them. Pure."""

import time
from collections.abc import Mapping, Sequence

import jwt

from edgeproxy.base.json_values import JsonObject
from edgeproxy.base.signing_keys import select_keys
from edgeproxy.collector.api.auth import DeniedError, Holder
from edgeproxy.config.collector.operators import LEEWAY_SECONDS, Operators

NEEDED = ["iss", "aud", "sub", "exp"]
ROLES = ("admin", "billing", "support", "read")
"""The roles of people; the first ones may do most."""
TOKEN_BYTES_MAX = 16 << 10
SUBJECT_CHARACTERS_MAX = 255
WHY_CHARACTERS_MAX = 200


def is_meant(secret: str) -> bool:
    """Return whether a bearer token has the form of an issuer's: three parts, of which the first is JSON in base64."""
    return secret.count(".") == 2 and secret.startswith("ey")


def key_id(secret: str) -> str:
    """Return which of the issuer's keys a token names, or an empty text; raises DeniedError where it is no token."""
    if len(secret) > TOKEN_BYTES_MAX:
        raise invalid("the token is longer than any may be")
    try:
        header = jwt.get_unverified_header(secret)
    except jwt.InvalidTokenError as error:
        raise invalid(f"the token is none: {error}") from None
    return str(header.get("kid", ""))


def operator(secret: str, keys: Sequence[jwt.PyJWK], settings: Operators) -> Holder:
    """Return who comes with a token, by the issuer's `keys`; raises DeniedError.

    The algorithm is one of those that are allowed by name, and must be one of the key's kind.
    """
    claims = believed(secret, keys, settings.issuer, settings.audience, settings.algorithms)
    subject = f"operator:{claims['sub']}"
    roles = roles_of(claims, settings)
    if not roles:
        raise DeniedError(403, f"{subject} has no role here: {settings.roles.claim} names none", actor=subject)
    factor_at = read_auth_time(claims.get("auth_time")) if has_factor(claims, settings) else None
    return Holder(subject, roles, is_person=True, factor_at=factor_at)


def read_auth_time(claim: object) -> float | None:
    """Return the Unix second of a sign-in; None where the claim is no such number, or in the future."""
    if not isinstance(claim, int | float) or isinstance(claim, bool):
        return None
    return float(claim) if 0 <= claim <= time.time() + LEEWAY_SECONDS else None


def believed(
    secret: str, keys: Sequence[jwt.PyJWK], issuer: str, audience: str, algorithms: Sequence[str]
) -> JsonObject:
    """Return the claims of a token of an issuer that is for `audience`; raises DeniedError."""
    why: Exception | str = "it is signed by a key that the issuer does not have"
    for key in select_keys(keys, key_id(secret)):
        try:
            claims: JsonObject = jwt.decode(
                secret,
                key=key.key,
                algorithms=list(algorithms),
                audience=audience,
                issuer=issuer,
                leeway=LEEWAY_SECONDS,
                options={"require": NEEDED},
            )
            break
        except (jwt.InvalidTokenError, TypeError, ValueError) as error:
            why = error
    else:
        raise invalid(f"the token is not believed: {why}") from None
    if not is_written(claims["sub"]):
        raise invalid(f"the token's sub is not a text of 1 to {SUBJECT_CHARACTERS_MAX} printable characters")
    return claims


def roles_of(claims: Mapping[str, object], settings: Operators) -> frozenset[str]:
    """List the roles that a token gives."""
    held = set(texts(claims.get(settings.roles.claim)))
    return frozenset(role for role in ROLES if held & set(getattr(settings.roles, role)))


def has_factor(claims: Mapping[str, object], settings: Operators) -> bool:
    """Return whether a token says that a second factor was shown."""
    factor = settings.second_factor
    return bool(set(texts(claims.get("amr"))) & set(factor.amr) or set(texts(claims.get("acr"))) & set(factor.acr))


def is_written(subject: object) -> bool:
    """Return whether a subject can be put on record."""
    return isinstance(subject, str) and 1 <= len(subject) <= SUBJECT_CHARACTERS_MAX and subject.isprintable()


def invalid(why: str) -> DeniedError:
    """Make the refusal of a token that is not believed. What it quotes of the token, anybody can have written."""
    why = "".join(one if one.isprintable() else "?" for one in why[:WHY_CHARACTERS_MAX])
    return DeniedError(401, why, {"WWW-Authenticate": 'Bearer error="invalid_token"'})


def texts(claim: object) -> list[str]:
    """Return the texts of a claim that is one or a list of them."""
    return [one for one in (claim if isinstance(claim, list) else [claim]) if isinstance(one, str)]
