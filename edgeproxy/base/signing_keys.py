"""The public keys of a JWK Set (RFC 7517) by which tokens are signed.

`jwt` is imported where a set is parsed, and not before: a process without issuers has 9 MB less.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import jwt

KEY_TYPES = ("RSA", "EC", "OKP")
KEYS_MAX = 100
"""Keys of a set that are read."""


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
