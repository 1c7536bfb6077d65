"""Tokens that the verifier refuses."""

import gc
from time import time

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from edgeproxy.config.edge.issuers import Issuer
from edgeproxy.edge.proxy.routing.token_verifier import TOKEN_BYTES_MAX, InvalidTokenError, TokenVerifier


def test_a_token_that_is_too_long_is_not_read() -> None:
    verifier = TokenVerifier({}, {}, lambda _: None)
    with pytest.raises(InvalidTokenError, match="cannot be read"):
        verifier.verify(b"eyJ".ljust(TOKEN_BYTES_MAX, b"a"))
    with pytest.raises(InvalidTokenError, match="too long"):
        verifier.verify(b"eyJ".ljust(TOKEN_BYTES_MAX + 1, b"a"))


def test_refused_tokens_leave_no_garbage() -> None:
    """A flood of them would otherwise make runs of the garbage collector long."""
    known, other = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    issuer = Issuer.model_validate({"issuer": "idp", "jwks": "https://idp.example/keys", "audiences": "edge"})
    key = jwt.PyJWK({**jwt.algorithms.ECAlgorithm.to_jwk(known.public_key(), as_dict=True), "kid": "1", "alg": "ES256"})
    verifier = TokenVerifier({"idp": issuer}, {"idp": [key]}, lambda _: None)
    claims = {"iss": "idp", "aud": "edge", "exp": time() + 60, "sub": "a"}
    forged = jwt.encode(claims, other, "ES256", headers={"kid": "1"}).encode()

    def refuse() -> None:
        with pytest.raises(InvalidTokenError, match="not genuine"):
            verifier.verify(forged)

    refuse()
    gc.collect()
    gc.disable()
    try:
        for _ in range(10):
            refuse()
        assert gc.collect() == 0
    finally:
        gc.enable()
