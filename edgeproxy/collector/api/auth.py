"""The holders of tokens, and the checks that deny them access. The rights of each role are in `endpoints.py`. Pure."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from edgeproxy.collector.accounts.contact_roles import ContactRole
from edgeproxy.config.collector.operators import FACTOR_SECONDS_MAX, is_factor_recent
from edgeproxy.config.collector.settings import Token

CUSTOMER = "customer"
"""The role of tokens that are bound to a customer."""


GROUPS_OF_ROLES = {
    **dict.fromkeys(("edge", "beacon"), "edges"),
    **dict.fromkeys(("service", "aggregates", "read", "support", "billing", "admin"), "api"),
    CUSTOMER: "customers",
}
"""The group that a listener's `serve` must name to answer holders of a role, by role."""


class DeniedError(Exception):
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


@dataclass(frozen=True, slots=True)
class Holder:
    """An authenticated caller: a machine, or a person."""

    label: str
    """The name of a machine's token, or `operator:` and the subject of a person's."""
    roles: frozenset[str]
    customer: str | None = None
    """The only customer that it may ask about."""
    edge: str | None = None
    """The only edge that may ship with it."""
    region: str | None = None
    """The only region whose edges may."""
    is_person: bool = False
    may_sensitive: bool = False
    """Whether the configuration allows sensitive operations; only for a machine."""
    factor_at: float | None = None
    """The Unix second of a person's sign-in with a second factor; None without one."""
    signed_in_at: float | None = None
    """The Unix second at which a customer's contact has signed in, so that their person was asked."""
    contact_role: ContactRole | None = None
    """The role of a customer's contact; None: an operator, or a machine."""

    @classmethod
    def of(cls, token: Token) -> "Holder":
        """Return the holder of a token from the configuration."""
        roles = frozenset({token.role or CUSTOMER})
        bounds = (token.customer, token.edge, token.region)
        return cls(token.label, roles, *bounds, may_sensitive=token.sensitive)

    @property
    def called(self) -> str:
        """The name of the holder in error messages, which are kept; a contact has none, as that is its address."""
        if self.contact_role is not None:
            return "a contact"
        return self.label if self.is_person else f"the token {self.label}"


def require(holder: Holder, roles: Collection[str], what: str) -> None:
    """Raise DeniedError unless one of the holder's roles is among `roles`, who may do `what`: a method and a path."""
    if not holder.roles & set(roles):
        held = f"role {', '.join(sorted(holder.roles))}"
        if holder.customer is not None:
            held = f"customer {holder.customer}"
        raise DeniedError(403, f"{holder.called} ({held}) may not {what}")


def require_group(holder: Holder, served: Collection[str], what: str) -> None:
    """Raise DeniedError where the holder asks for `what` at a listener that does not serve the groups of its roles."""
    groups = {GROUPS_OF_ROLES[role] for role in holder.roles}
    if not groups & set(served):
        why = f"this listener does not serve {min(groups)}"
        raise DeniedError(403, f"{holder.called} may not {what} here: {why}", actor=holder.label)


def require_consent(holder: Holder, what: str, now: float) -> None:
    """Raise DeniedError unless the holder may do `what`, which is sensitive, at the Unix second `now`.

    A person must have signed in with a second factor a moment ago (RFC 9470 section 3); a contact of a customer, who
    has none, must have signed in a moment ago. A machine must be allowed to by the configuration.
    """
    if not holder.is_person:
        if not holder.may_sensitive:
            why = "it is sensitive: write sensitive: true beside the token's name in the collector's file"
            raise DeniedError(403, f"{holder.called} may not {what}: {why}")
    elif holder.contact_role is not None:
        if not is_factor_recent(holder.signed_in_at, now):
            why = f"sign in again; a sign-in counts for {FACTOR_SECONDS_MAX // 60} minutes"
            raise DeniedError(401, f"insufficient_user_authentication: {why}")
    elif not is_factor_recent(holder.factor_at, now):
        error = 'error="insufficient_user_authentication", error_description="a second factor is needed"'
        why = f"sign in with a second factor; the last time counts for {FACTOR_SECONDS_MAX // 60} minutes"
        challenge = {"WWW-Authenticate": f"Bearer {error}, max_age={FACTOR_SECONDS_MAX}"}
        raise DeniedError(401, f"insufficient_user_authentication: {why}", challenge)


def require_edge(holder: Holder, edge: str) -> None:
    """Raise DeniedError unless the holder may ship batches of this edge."""
    if holder.edge not in (None, edge):
        raise DeniedError(403, f"{holder.called} is bound to another edge")


def require_own(holder: Holder, customer: str | None) -> None:
    """Raise DeniedError where the holder is bound to a customer, and what it asks for is not of this one."""
    if holder.customer is not None and holder.customer != customer:
        raise DeniedError(403, f"{holder.called} is bound to another customer")


def customer_of(holder: Holder, customer: str | None) -> str | None:
    """Return whose usage is read where that of `customer` (None: of all) was asked for; raises DeniedError."""
    if holder.customer is None or customer is None:
        return holder.customer or customer
    require_own(holder, customer)
    return customer
