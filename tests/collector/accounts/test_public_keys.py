"""Public keys of customers: accepted keys, and encryption to them."""

import base64
import json

import pytest
from joserfc import jwe
from joserfc.jwk import ECKey, OKPKey, RSAKey

from edgeproxy.collector.accounts import public_keys
from edgeproxy.collector.accounts.change import ChangeRejectedError

PRIVATE_KEYS = {
    "rsa": RSAKey.generate_key(2048),
    **{curve: ECKey.generate_key(curve) for curve in ("P-256", "P-384", "P-521")},
    "X25519": OKPKey.generate_key("X25519"),
}


def to_text(number: int) -> str:
    return base64.urlsafe_b64encode(number.to_bytes((number.bit_length() + 7) // 8)).decode().rstrip("=")


RSA = {"kty": "RSA", "n": to_text(2**2047 + 1), "e": "AQAB"}


@pytest.mark.parametrize("key", PRIVATE_KEYS.values(), ids=PRIVATE_KEYS)
def test_owner_decrypts_a_message_to_its_public_key(key: RSAKey | ECKey | OKPKey) -> None:
    stored = public_keys.parse_public_key(key.as_dict(private=False))
    assert not public_keys.PRIVATE_MEMBERS & json.loads(stored).keys()
    message = public_keys.encrypt(stored, b'{"secret": "edge_v1_x"}')
    read = jwe.decrypt_compact(message, key, registry=public_keys.REGISTRY)
    assert read.plaintext == b'{"secret": "edge_v1_x"}'
    about = public_keys.describe(stored)
    assert read.headers() == {"alg": about["alg"], "enc": "A256GCM", "kid": key.thumbprint(), "cty": "json"} | (
        {"epk": read.headers()["epk"]} if "epk" in read.headers() else {}
    )


@pytest.mark.parametrize("key", PRIVATE_KEYS.values(), ids=PRIVATE_KEYS)
def test_private_key_is_refused_and_never_quoted(key: RSAKey | ECKey | OKPKey) -> None:
    private = key.as_dict(private=True)
    with pytest.raises(ChangeRejectedError) as caught:
        public_keys.parse_public_key(private)
    assert "is a private key" in str(caught.value.faults)
    assert str(private["d"]) not in repr(caught.value.__dict__)


@pytest.mark.parametrize(
    ("jwk", "why"),
    [
        ({}, "has no kty"),
        ({"kty": ["RSA"]}, "has no kty"),
        ({"kty": "oct", "k": "AAAA"}, "is a private key"),
        ({"kty": "RSA"}, "is no public key"),
        ({"kty": "RSA", "n": 5, "e": [1]}, "is no public key"),
        ({**RSA, "n": to_text(2**1023 + 1)}, "has 1024 bits"),
        ({**RSA, "n": to_text(2**20_000 + 1)}, "has 20001 bits"),
        ({**RSA, "e": "AQ"}, "has a weak exponent"),
        ({**RSA, "e": "Aw"}, "has a weak exponent"),
        ({**RSA, "e": to_text(65538)}, "has a weak exponent"),
        ({**RSA, "n": to_text(2**2047 + 2)}, "is no public key"),
        ({**RSA, "use": "sig"}, "is for signatures"),
        ({**RSA, "alg": "RSA1_5"}, "is for another alg"),
        ({**RSA, "alg": "dir"}, "is for another alg"),
        ({**RSA, "alg": ["RSA-OAEP-256"]}, "is for another alg"),
        ({**RSA, "kid": "a\nb"}, "has a kid"),
        ({**RSA, "kid": 5}, "has a kid"),
        ({**RSA, "kid": "k" * 101}, "has a kid"),
        ({**RSA, "x5c": ["A" * 9000]}, "is longer"),
        ({"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}, "is no public key"),
        ({"kty": "EC", "crv": "secp256k1", "x": "AA", "y": "AA"}, "has no crv"),
        ({"kty": "EC", "crv": ["P-256"], "x": "AA", "y": "AA"}, "has no crv"),
        ({"kty": "OKP", "crv": "Ed25519", "x": to_text(2**255 - 1)}, "has no crv"),
        ({"kty": "OKP", "crv": "X25519", "x": "A" * 43}, "is no public key"),  # The point of order one.
        ({"kty": "OKP", "crv": "X25519", "x": "\ud800"}, "is no public key"),
    ],
)
def test_weak_or_unusable_key_is_refused_with_a_reason(jwk: dict[str, object], why: str) -> None:
    with pytest.raises(ChangeRejectedError) as caught:
        public_keys.parse_public_key(jwk)
    ((field, text, _, _),) = caught.value.faults
    assert (caught.value.status, field) == (422, "jwk")
    assert text.startswith(why)
