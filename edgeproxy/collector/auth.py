"""Who may ask the collector what: bearer tokens, known by their SHA-256."""

import hashlib
from collections.abc import Iterable

from edgeproxy.config.collector import Token


class Denied(Exception):
    """No: `status` is 401 where nobody is known to ask, 403 where they may not."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(status, detail)
        self.status = status
        self.detail = detail


class Tokens:
    """The tokens of a configuration."""

    def __init__(self, tokens: Iterable[Token]) -> None:
        self._known = {token.sha256: token for token in tokens}

    def holder(self, authorization: str | None) -> Token:
        """Whose `Authorization` this is; raises Denied."""
        scheme, _, secret = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not secret:
            raise Denied(401, "send Authorization: Bearer and a token")
        # The hash hides what a look-up in a dict may tell of how much of it was right.
        token = self._known.get(hashlib.sha256(secret.strip().encode("utf-8", "surrogateescape")).hexdigest())
        if token is None:
            raise Denied(401, "the token is not known here")
        return token


def may_ship(token: Token, edge: str) -> None:
    """Whether batches of this edge may be sent with it, as far as its headers tell; raises Denied."""
    if token.role != "edge":
        raise Denied(403, "the token's role is not edge")
    if token.edge not in (None, edge):
        raise Denied(403, "the token is bound to another edge")


def may_ship_from(token: Token, region: str | None) -> None:
    """Raise Denied unless batches of this region may be sent with the token; None: the edge has no region yet."""
    if token.region is not None and region not in (None, token.region):
        raise Denied(403, "the token is bound to another region")


def may_read(token: Token, customer: str | None) -> str | None:
    """Whose usage is read where that of `customer` (None: everybody) was asked for; raises Denied."""
    if token.customer is not None:
        if customer not in (None, token.customer):
            raise Denied(403, "the token is bound to another customer")
        return token.customer
    may_read_all(token)
    return customer


def may_read_all(token: Token) -> None:
    """Whether everything may be read with it; raises Denied."""
    if token.role not in ("read", "admin"):
        raise Denied(403, "the token's role is neither read nor admin")


def may_change(token: Token) -> None:
    """Whether what the collector has may be changed with it; raises Denied."""
    if token.role != "admin":
        raise Denied(403, "the token's role is not admin")
