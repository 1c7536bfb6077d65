"""The public keys of a JWK Set (RFC 7517), which verify the signatures of tokens.

`jwt` is imported only to parse a set. This saves 9 MB in processes without issuers.
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import jwt

KEY_TYPES = ("RSA", "EC", "OKP")
KEYS_MAX = 100
"""Maximum keys that are read from a set."""

WITHOUT_KEYS_SECONDS_MAX = 86_400.0
"""Seconds of validity for keys after the last set with them, while the issuer answers 200 without usable keys.

A fault of its key store must not lock all users out, and a withdrawn key must not stay valid for ever.
"""


def parse_signing_keys(key_set: Mapping[str, object]) -> list["jwt.PyJWK"]:
    """Return the usable keys, without private keys, other uses and unknown types.

    Raises ValueError if the document is no JWK Set.
    """
    import jwt

    listed = key_set.get("keys")
    if not isinstance(listed, list):
        raise ValueError("it is no JWK Set")  # noqa: TRY004 - the document is invalid, not an argument
    keys = []
    for key in listed[:KEYS_MAX]:
        if isinstance(key, dict) and key.get("kty") in KEY_TYPES and key.get("use", "sig") == "sig":
            if "d" in key or not isinstance(key.get("kid", ""), str):
                continue  # A published private key is no proof any more.
            try:
                keys.append(jwt.PyJWK.from_dict(key))
            except (jwt.PyJWTError, ValueError, TypeError, LookupError, NotImplementedError):
                continue  # An unreadable key does not invalidate the others.
    return keys


def select_keys(keys: Iterable["jwt.PyJWK"], kid: object) -> list["jwt.PyJWK"]:
    """Return the keys that may have signed a token with this `kid`, which is None or empty if absent.

    `kid` is an optional hint in both (RFC 7515 section 4.1.4, RFC 7517 section 4.5). If no key has the token's `kid`,
    the keys without one are tried. A key with another `kid` is never tried.
    """
    if not kid:
        return list(keys)
    named = [key for key in keys if key.key_id == kid]
    return named or [key for key in keys if not key.key_id]
