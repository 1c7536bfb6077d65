"""Operators: people with a token of their issuer (OpenID Connect), and its claims about them. Pure."""

import time
from collections.abc import Mapping, Sequence

import jwt

from edgeproxy.base.json_values import JsonObject
from edgeproxy.base.signing_keys import select_keys
from edgeproxy.collector.api.auth import DeniedError, Holder
from edgeproxy.collector.problems import request_codes
from edgeproxy.config.collector.operators import LEEWAY_SECONDS, Operators

NEEDED = ["iss", "aud", "sub", "exp"]
ROLES = ("admin", "billing", "support", "read")
"""The roles of people, most powerful first."""
TOKEN_BYTES_MAX = 16 << 10
SUBJECT_CHARACTERS_MAX = 255
WHY_CHARACTERS_MAX = 200


def is_meant(secret: str) -> bool:
    """Return True if a bearer token has the form of an issuer's token: three parts, beginning with base64 of JSON."""
    return secret.count(".") == 2 and secret.startswith("ey")


def key_id(secret: str) -> str:
    """Return the key id in a token, or an empty text. Raises DeniedError for an invalid token."""
    if len(secret) > TOKEN_BYTES_MAX:
        raise invalid("the token is longer than any may be")
    try:
        header = jwt.get_unverified_header(secret)
    except jwt.InvalidTokenError as error:
        raise invalid(f"the token is none: {error}") from None
    return str(header.get("kid", ""))


def operator(secret: str, keys: Sequence[jwt.PyJWK], settings: Operators) -> Holder:
    """Return the operator with a token, verified with the issuer's `keys`. Raises DeniedError.

    The algorithm must be permitted by name, and fit the type of the key.
    """
    claims = believed(secret, keys, settings.issuer, settings.audience, settings.algorithms)
    subject = f"operator:{claims['sub']}"
    roles = roles_of(claims, settings)
    if not roles:
        raise DeniedError(
            request_codes.ROLE_MISSING, f"{subject} has no role here: {settings.roles.claim} names none", actor=subject
        )
    factor_at = read_auth_time(claims.get("auth_time")) if has_factor(claims, settings) else None
    return Holder(subject, roles, is_person=True, factor_at=factor_at)


def read_auth_time(claim: object) -> float | None:
    """Return the Unix second of a sign-in, or None if the claim is no valid number or in the future."""
    if not isinstance(claim, int | float) or isinstance(claim, bool):
        return None
    return float(claim) if 0 <= claim <= time.time() + LEEWAY_SECONDS else None


def believed(
    secret: str, keys: Sequence[jwt.PyJWK], issuer: str, audience: str, algorithms: Sequence[str]
) -> JsonObject:
    """Return the claims of an issuer's token for `audience`. Raises DeniedError."""
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
    """Return the roles that a token grants."""
    held = set(texts(claims.get(settings.roles.claim)))
    return frozenset(role for role in ROLES if held & set(getattr(settings.roles, role)))


def has_factor(claims: Mapping[str, object], settings: Operators) -> bool:
    """Return True if a token proves a second factor."""
    factor = settings.second_factor
    return bool(set(texts(claims.get("amr"))) & set(factor.amr) or set(texts(claims.get("acr"))) & set(factor.acr))


def is_written(subject: object) -> bool:
    """Return True if a subject may be written to the audit log."""
    return isinstance(subject, str) and 1 <= len(subject) <= SUBJECT_CHARACTERS_MAX and subject.isprintable()


def invalid(why: str) -> DeniedError:
    """Return the error for an invalid token. Quoted parts are untrusted, so they are cleaned and shortened."""
    why = "".join(character if character.isprintable() else "?" for character in why[:WHY_CHARACTERS_MAX])
    return DeniedError(request_codes.TOKEN_INVALID, why, {"WWW-Authenticate": 'Bearer error="invalid_token"'})


def texts(claim: object) -> list[str]:
    """Return the texts of a claim that is a text or a list of texts."""
    return [one for one in (claim if isinstance(claim, list) else [claim]) if isinstance(one, str)]
