"""Bearer tokens (RFC 6750): who holds one that is known by its SHA-256, and has not expired."""

import hashlib
from collections.abc import Iterable
from typing import Generic, Protocol, TypeVar


class BearerToken(Protocol):
    """A token as a configuration, or a database, has it."""

    @property
    def label(self) -> str:
        """What it is called in answers and logs."""

    @property
    def sha256(self) -> tuple[str, ...]:
        """The SHA-256 in hex of its secret, or of several while one replaces another."""

    @property
    def expires(self) -> float | None:
        """The Unix second at which it ends; None: never."""


T = TypeVar("T", bound=BearerToken)

NO_TOKEN = "send Authorization: Bearer and a token"


class InvalidTokenError(Exception):
    """Nobody who is known asks: a sentence why. `challenge` is the answer's `WWW-Authenticate`."""

    def __init__(self, why: str, challenge: str = 'Bearer error="invalid_token"', actor: str | None = None) -> None:
        super().__init__(why)
        self.challenge = challenge
        self.actor = actor
        """The label of the token that was shown, where it is one that has expired."""


class Tokens(Generic[T]):
    """Tokens, each by all of its secrets."""

    def __init__(self, tokens: Iterable[T]) -> None:
        self._by_digest = {hash_token: token for token in tokens for hash_token in token.sha256}

    def holder(self, authorization: str | None, now: float) -> T:
        """Return the token that an `Authorization` field carries at the Unix second `now`; raises Unknown."""
        # The hash hides what a look-up in a dict may tell of how much of it was right.
        token = self._by_digest.get(hash_token(parse_bearer(authorization)))
        if token is None:
            raise InvalidTokenError("the token is not known here")
        if token.expires is not None and now >= token.expires:
            raise InvalidTokenError(f"the token {token.label} has expired", actor=token.label)
        return token


def parse_bearer(authorization: str | None) -> str:
    """Return what follows `Bearer` in an `Authorization` field; raises Unknown."""
    scheme, _, rest = (authorization or "").partition(" ")
    if scheme.lower() != "bearer" or not rest.strip():
        raise InvalidTokenError(NO_TOKEN, "Bearer")
    return rest.strip()


def hash_token(token: str) -> str:
    """Return the SHA-256 of a secret in hex."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()
