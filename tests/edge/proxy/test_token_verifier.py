"""Tokens whose issuer nobody has to ask."""

import pytest

from edgeproxy.edge.proxy.token_verifier import TOKEN_BYTES_MAX, InvalidTokenError, TokenVerifier


def test_a_token_that_is_too_long_is_not_read() -> None:
    verifier = TokenVerifier({}, {}, lambda _: None)
    with pytest.raises(InvalidTokenError, match="cannot be read"):
        verifier.verify(b"eyJ".ljust(TOKEN_BYTES_MAX, b"a"))
    with pytest.raises(InvalidTokenError, match="too long"):
        verifier.verify(b"eyJ".ljust(TOKEN_BYTES_MAX + 1, b"a"))
