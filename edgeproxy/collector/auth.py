"""Who may ask the collector what: bearer tokens, known by their SHA-256, and what each role may do."""

import hashlib
from collections.abc import Iterable
from enum import Enum

from edgeproxy.config.collector import Token


class Right(Enum):
    """What a caller may be allowed to do; the value completes the sentence "the token may not ..."."""

    SHIP = "ship batches"
    REPORT = "report events"
    READ = "read usage of all customers"
    HELP = "pause customers and revoke or rotate their keys"
    BILL = "change what money is about"
    CHANGE = "change what the collector has"


RIGHTS: dict[str, frozenset[Right]] = {
    "edge": frozenset({Right.SHIP}),
    "service": frozenset({Right.REPORT}),
    "read": frozenset({Right.READ}),
    "support": frozenset({Right.READ, Right.HELP}),
    "billing": frozenset({Right.READ, Right.BILL}),
    "admin": frozenset({Right.READ, Right.HELP, Right.BILL, Right.CHANGE}),
}
"""What the holder of a role may do."""


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


def require(token: Token, right: Right) -> None:
    """Raise Denied unless the token's role has this right."""
    if token.role is None or right not in RIGHTS[token.role]:
        held = f"role {token.role}" if token.role is not None else f"customer {token.customer}"
        raise Denied(403, f"the token {token.label} ({held}) may not {right.value}")


def require_edge(token: Token, edge: str | None) -> None:
    """Raise Denied unless the token may ship batches of this edge; None: it is not known which edge it is."""
    require(token, Right.SHIP)
    if edge is not None and token.edge not in (None, edge):
        raise Denied(403, f"the token {token.label} is bound to another edge")


def customer_of(token: Token, customer: str | None) -> str | None:
    """Return whose usage is read where that of `customer` (None: of all) was asked for; raises Denied."""
    if token.customer is None:
        require(token, Right.READ)
        return customer
    if customer not in (None, token.customer):
        raise Denied(403, f"the token {token.label} is bound to another customer")
    return token.customer
