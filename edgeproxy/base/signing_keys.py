"""The public keys of a JWK Set (RFC 7517) by which tokens are signed.

`jwt` is imported where a set is parsed, and not before: a process without issuers has 9 MB less.
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import jwt

KEY_TYPES = ("RSA", "EC", "OKP")
KEYS_MAX = 100
"""Keys of a set that are read."""

WITHOUT_KEYS_SECONDS_MAX = 86_400.0
"""Seconds for which known keys count after they were last in a set, while the issuer answers 200 without a key that can
be used: a fault of its key store must not lock everybody out, and no withdrawn key may count for good."""


def parse_signing_keys(key_set: Mapping[str, object]) -> list["jwt.PyJWK"]:
    """Return the keys that can be used; private ones, and those of other uses or unknown types, are left out.

    Raises ValueError where the document is no JWK Set.
    """
    import jwt

    listed = key_set.get("keys")
    if not isinstance(listed, list):
        raise ValueError("it is no JWK Set")  # noqa: TRY004 - of the document, not of an argument
    keys = []
    for key in listed[:KEYS_MAX]:
        if isinstance(key, dict) and key.get("kty") in KEY_TYPES and key.get("use", "sig") == "sig":
            if "d" in key or not isinstance(key.get("kid", ""), str):
                continue  # A private key that is published is everybody's.
            try:
                keys.append(jwt.PyJWK.from_dict(key))
            except (jwt.PyJWTError, ValueError, TypeError, LookupError, NotImplementedError):
                continue  # A key that this version cannot read does not void the others.
    return keys


def select_keys(keys: Iterable["jwt.PyJWK"], kid: object) -> list["jwt.PyJWK"]:
    """Return the keys by which a token with this `kid` may be signed; `kid` is None or empty where it names none.

    `kid` is a hint, and optional in both (RFC 7515 section 4.1.4, RFC 7517 section 4.5): where no key has the token's,
    the keys without one are tried. A key with another `kid` never is.
    """
    if not kid:
        return list(keys)
    named = [key for key in keys if key.key_id == kid]
    return named or [key for key in keys if not key.key_id]
