"""Who asks the collector: bearer tokens, known by their SHA-256. What each role may do is in `endpoints.py`."""

from collections.abc import Collection, Iterable, Mapping

from edgeproxy import bearer
from edgeproxy.collector.endpoint import CUSTOMER
from edgeproxy.config.collector import Token


class Denied(Exception):
    """The answer is no: `status` is 401 where nobody known asks, 403 where they may not, 429 where they have too much.

    `headers` are further fields of the answer, `actor` is who asked where that is known, and still not enough.
    """

    def __init__(
        self, status: int, detail: str, headers: Mapping[str, str] | None = None, actor: str | None = None
    ) -> None:
        super().__init__(status, detail)
        self.status = status
        self.detail = detail
        self.headers = dict(headers or {})
        self.actor = actor


class Tokens:
    """The tokens of a configuration."""

    def __init__(self, tokens: Iterable[Token]) -> None:
        self._tokens = bearer.Tokens(tokens)

    def holder(self, authorization: str | None, now: float) -> Token:
        """Return the token that an `Authorization` field carries at the Unix second `now`; raises Denied."""
        try:
            return self._tokens.holder(authorization, now)
        except bearer.Unknown as no:
            raise Denied(401, str(no), {"WWW-Authenticate": no.challenge}, no.actor) from None


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
