"""Who asks the collector: bearer tokens, known by their SHA-256. What each role may do is in `endpoints.py`."""

import hashlib
from collections.abc import Collection, Iterable

from edgeproxy.collector.endpoint import CUSTOMER
from edgeproxy.config.collector import Token


class Denied(Exception):
    """The answer is no: `status` is 401 where nobody is known to ask, 403 where they may not."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(status, detail)
        self.status = status
        self.detail = detail


class Tokens:
    """The tokens of a configuration, each by all of its secrets."""

    def __init__(self, tokens: Iterable[Token]) -> None:
        self._known = {digest: token for token in tokens for digest in token.sha256}

    def holder(self, authorization: str | None, now: float) -> Token:
        """Return the token that an `Authorization` field carries at the Unix second `now`; raises Denied."""
        scheme, _, secret = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not secret:
            raise Denied(401, "send Authorization: Bearer and a token")
        # The hash hides what a look-up in a dict may tell of how much of it was right.
        token = self._known.get(hashlib.sha256(secret.strip().encode("utf-8", "surrogateescape")).hexdigest())
        if token is None:
            raise Denied(401, "the token is not known here")
        if token.expires is not None and now >= token.expires:
            raise Denied(401, f"the token {token.label} has expired")
        return token


def role_of(token: Token) -> str:
    """Return the role of a token; that of one bound to a customer is `customer`."""
    return token.role or CUSTOMER


def require(token: Token, roles: Collection[str], what: str) -> None:
    """Raise Denied unless the token's role is among `roles`, who may do `what`: a method and a path."""
    if role_of(token) not in roles:
        held = f"role {token.role}" if token.role is not None else f"customer {token.customer}"
        raise Denied(403, f"the token {token.label} ({held}) may not {what}")


def require_edge(token: Token, edge: str) -> None:
    """Raise Denied unless the token may ship batches of this edge."""
    if token.edge not in (None, edge):
        raise Denied(403, f"the token {token.label} is bound to another edge")


def require_own(token: Token, customer: str | None) -> None:
    """Raise Denied where the token is bound to a customer, and what it asks for is not of this one."""
    if token.customer is not None and token.customer != customer:
        raise Denied(403, f"the token {token.label} is bound to another customer")


def customer_of(token: Token, customer: str | None) -> str | None:
    """Return whose usage is read where that of `customer` (None: of all) was asked for; raises Denied."""
    if token.customer is None or customer is None:
        return token.customer or customer
    require_own(token, customer)
    return customer
