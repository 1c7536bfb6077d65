"""Bearer tokens (RFC 6750): the holder of a token, by its SHA-256 and its expiry."""

import hashlib
from collections.abc import Iterable
from typing import Generic, Protocol, TypeVar


class BearerToken(Protocol):
    """A token of a configuration or a database."""

    @property
    def label(self) -> str:
        """The name of the token in answers and logs."""

    @property
    def sha256(self) -> tuple[str, ...]:
        """The SHA-256 of its secret in hex, or of several secrets while one replaces another."""

    @property
    def expires(self) -> float | None:
        """The Unix second of its expiry. None: it never expires."""


T = TypeVar("T", bound=BearerToken)

NO_TOKEN = "send Authorization: Bearer and a token"


class InvalidTokenError(Exception):
    """A missing, unknown or expired token. The message is a sentence, `challenge` the answer's `WWW-Authenticate`."""

    def __init__(self, why: str, challenge: str = 'Bearer error="invalid_token"', actor: str | None = None) -> None:
        super().__init__(why)
        self.challenge = challenge
        self.is_missing = why == NO_TOKEN
        self.actor = actor
        """The label of the token, if it has expired."""


class Tokens(Generic[T]):
    """Tokens by the hashes of their secrets."""

    def __init__(self, tokens: Iterable[T]) -> None:
        self._by_digest = {hash_token: token for token in tokens for hash_token in token.sha256}

    def holder(self, authorization: str | None, now: float) -> T:
        """Return the token in an `Authorization` field at Unix second `now`. Raises InvalidTokenError."""
        # The hash hides how much of the token was correct from the timing of the look-up.
        token = self._by_digest.get(hash_token(parse_bearer(authorization)))
        if token is None:
            raise InvalidTokenError("the token is not known here")
        if token.expires is not None and now >= token.expires:
            raise InvalidTokenError(f"the token {token.label} has expired", actor=token.label)
        return token


def parse_bearer(authorization: str | None) -> str:
    """Return the token in an `Authorization` field. Raises InvalidTokenError."""
    scheme, _, rest = (authorization or "").partition(" ")
    if scheme.lower() != "bearer" or not rest.strip():
        raise InvalidTokenError(NO_TOKEN, "Bearer")
    return rest.strip()


def hash_token(token: str) -> str:
    """Return the SHA-256 of a secret in hex."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()
