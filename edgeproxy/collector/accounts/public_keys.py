"""Public keys that customers register, and secrets encrypted to them: JWK (RFC 7517) and JWE (RFC 7516). Pure.

Only the kind of the key chooses the algorithms (KEY_KINDS); no text of a customer does.
"""

import base64
import json
from collections.abc import Mapping
from typing import Final, NamedTuple

import orjson
from joserfc import jwe
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey

from edgeproxy.collector.accounts.change import ChangeRejectedError, reject_field
from edgeproxy.collector.accounts.rotation_models import PublicKey

FIELD = "jwk"
"""The field of a request for a public key."""
JWK_BYTES_MAX = 8192
KID_CHARACTERS_MAX = 100
RSA_BITS = range(2048, 8192 + 1)
RSA_EXPONENTS = range(65537, 1 << 32)
ENCRYPTION: Final = "A256GCM"
PRIVATE_MEMBERS: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
"""The members of private and symmetric keys (RFC 7518, section 6)."""


class KeyKind(NamedTuple):
    """A kind of public keys."""

    algorithm: str
    """The `alg` of a JWE to it."""
    curves: frozenset[str]
    """The allowed curves; empty if the kind has no curve."""
    members: tuple[str, ...]
    """The members of the key itself (RFC 7638)."""
    key_class: type[RSAKey] | type[ECKey] | type[OKPKey]


KEY_KINDS: Final[Mapping[str, KeyKind]] = {
    "RSA": KeyKind("RSA-OAEP-256", frozenset(), ("e", "n"), RSAKey),
    "EC": KeyKind("ECDH-ES+A256KW", frozenset({"P-256", "P-384", "P-521"}), ("crv", "x", "y"), ECKey),
    "OKP": KeyKind("ECDH-ES+A256KW", frozenset({"X25519"}), ("crv", "x"), OKPKey),
}
"""The kinds of public keys, by `kty`."""
REGISTRY: Final = jwe.JWERegistry(
    algorithms=[*sorted({kind.algorithm for kind in KEY_KINDS.values()}), ENCRYPTION], strict_check_header=True
)


def parse_public_key(jwk: Mapping[str, object]) -> str:
    """Return a public key in its stored form: JSON of the key itself and its `kid`, by default its thumbprint.

    Raises ChangeRejectedError(422). The text never shows a member, because a private key may have been sent by mistake.
    """
    if len(json.dumps(jwk)) > JWK_BYTES_MAX:
        raise reject_field(FIELD, f"is longer than {JWK_BYTES_MAX} bytes")
    if PRIVATE_MEMBERS & jwk.keys():
        raise reject_field(FIELD, "is a private key, which is spoilt now: make a new one, and send its public half")
    kind = KEY_KINDS.get(str(jwk.get("kty")))
    if kind is None:
        raise reject_field(FIELD, f"has no kty of {', '.join(KEY_KINDS)}")
    _require_purpose(jwk, kind)
    if kind.curves and str(jwk.get("crv")) not in kind.curves:
        raise reject_field(FIELD, f"has no crv of {', '.join(sorted(kind.curves))}")
    own = {"kty": jwk["kty"], **{name: jwk.get(name) for name in kind.members}}
    try:
        if kind.key_class is RSAKey:
            _require_strength(own)
        key = kind.key_class.import_key(own)  # type: ignore[arg-type]
        stored = orjson.dumps({**own, "kid": _parse_kid(jwk, key)}).decode()
        encrypt(stored, b"")  # Encryption detects a point outside its group, or in a small one.
    except ChangeRejectedError:
        raise
    except (JoseError, ValueError, TypeError, AttributeError, LookupError, OverflowError):
        raise reject_field(FIELD, "is no public key that can be encrypted to") from None
    return stored


def _require_purpose(jwk: Mapping[str, object], kind: KeyKind) -> None:
    """Raise ChangeRejectedError if a key declares a purpose other than receiving secrets."""
    if jwk.get("use", "enc") != "enc":
        raise reject_field(FIELD, "is for signatures: its use is not enc")
    if jwk.get("alg", kind.algorithm) != kind.algorithm:
        raise reject_field(FIELD, f"is for another alg: such a key is used with {kind.algorithm}")


def _require_strength(own: Mapping[str, object]) -> None:
    """Raise ChangeRejectedError if an RSA key is too weak, or too long for fast encryption."""
    numbers = [own[name] for name in ("n", "e")]
    if not all(isinstance(number, str) for number in numbers):
        raise ValueError
    modulus, exponent = (int.from_bytes(base64.urlsafe_b64decode(f"{number}==")) for number in numbers)
    if modulus.bit_length() not in RSA_BITS:
        raise reject_field(FIELD, f"has {modulus.bit_length()} bits: {RSA_BITS[0]} to {RSA_BITS[-1]} can be used")
    if exponent not in RSA_EXPONENTS or exponent % 2 == 0:
        raise reject_field(FIELD, "has a weak exponent: 65537 is usual")


def _parse_kid(jwk: Mapping[str, object], key: RSAKey | ECKey | OKPKey) -> str:
    """Return the name of a key."""
    kid = jwk.get("kid")
    if kid is None:
        return str(key.thumbprint())
    if not isinstance(kid, str) or not 0 < len(kid) <= KID_CHARACTERS_MAX or not (kid.isascii() and kid.isprintable()):
        raise reject_field(FIELD, f"has a kid that is no text of 1 to {KID_CHARACTERS_MAX} ASCII characters")
    return kid


def encrypt(public_key: str, payload: bytes) -> str:
    """Return a compact JWE of a payload to a public key in the form of `parse_public_key`."""
    jwk = orjson.loads(public_key)
    kind = KEY_KINDS[jwk["kty"]]
    header = {"alg": kind.algorithm, "enc": ENCRYPTION, "kid": jwk["kid"], "cty": "json"}
    return jwe.encrypt_compact(header, payload, kind.key_class.import_key(jwk), registry=REGISTRY)


def describe(public_key: str) -> PublicKey:
    """Return the visible fields of a public key: `kty`, `kid`, the `alg` of a JWE to it and its SHA-256 thumbprint."""
    jwk = orjson.loads(public_key)
    kind = KEY_KINDS[jwk["kty"]]
    thumbprint = kind.key_class.import_key(jwk).thumbprint()
    return {"kty": jwk["kty"], "kid": jwk["kid"], "alg": kind.algorithm, "thumbprint": thumbprint}
