"""Holders of tokens, and the checks that deny them access. The endpoints list the roles that may call them. Pure."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from edgeproxy.base.bearer import InvalidTokenError
from edgeproxy.base.problem_codes import ProblemCode
from edgeproxy.collector.accounts.contact_roles import ContactRole
from edgeproxy.collector.problems import request_codes
from edgeproxy.collector.problems.coded_error import CodedError
from edgeproxy.config.collector.operators import FACTOR_SECONDS_MAX, is_factor_recent
from edgeproxy.config.collector.settings import Token

CUSTOMER = "customer"
"""The role of tokens that are bound to a customer."""


GROUPS_OF_ROLES = {
    **dict.fromkeys(("edge", "beacon"), "edges"),
    **dict.fromkeys(("service", "aggregates", "read", "support", "billing", "admin"), "api"),
    CUSTOMER: "customers",
}
"""For each role, the group that a listener's `serve` must include to accept its holders."""


class DeniedError(CodedError):
    """The request is denied. Its status is 401 without a valid identity, 403 without the right, 429 over a limit.

    `headers` are additional fields of the answer. `actor` is the identified caller, even if identification did not
    suffice.
    """

    def __init__(
        self, code: ProblemCode, why: str, headers: Mapping[str, str] | None = None, actor: str | None = None
    ) -> None:
        super().__init__(code, why)
        self.headers = dict(headers or {})
        self.actor = actor


def deny_token(error: InvalidTokenError) -> DeniedError:
    """Return the denial of a request without a valid token."""
    code = request_codes.TOKEN_MISSING if error.is_missing else request_codes.TOKEN_INVALID
    return DeniedError(code, str(error), {"WWW-Authenticate": error.challenge}, error.actor)


@dataclass(frozen=True, slots=True)
class Holder:
    """An authenticated caller: a machine or a person."""

    label: str
    """The name of a machine's token, or `operator:` and the subject of a person's token."""
    roles: frozenset[str]
    customer: str | None = None
    """The only customer that it may access."""
    edge: str | None = None
    """The only edge that may ship with it."""
    region: str | None = None
    """The only region whose edges may ship with it."""
    is_person: bool = False
    may_sensitive: bool = False
    """True if the configuration permits sensitive operations. Only for machines."""
    factor_at: float | None = None
    """The Unix second of a person's sign-in with a second factor, or None."""
    signed_in_at: float | None = None
    """The Unix second when a customer's contact last signed in personally."""
    contact_role: ContactRole | None = None
    """The role of a contact; None: an operator or a machine."""

    @classmethod
    def of(cls, token: Token) -> "Holder":
        """Return the holder of a token from the configuration."""
        roles = frozenset({token.role or CUSTOMER})
        bounds = (token.customer, token.edge, token.region)
        return cls(token.label, roles, *bounds, may_sensitive=token.sensitive)

    @property
    def called(self) -> str:
        """The holder's name in error messages. They are stored, so a contact's address is left out."""
        if self.contact_role is not None:
            return "a contact"
        return self.label if self.is_person else f"the token {self.label}"


def require(holder: Holder, roles: Collection[str], what: str) -> None:
    """Raise DeniedError unless the holder has one of `roles`, which may do `what` (a method and a path)."""
    if not holder.roles & set(roles):
        held = f"role {', '.join(sorted(holder.roles))}"
        if holder.customer is not None:
            held = f"customer {holder.customer}"
        raise DeniedError(request_codes.ROLE_DENIED, f"{holder.called} ({held}) may not {what}")


def require_group(holder: Holder, served: Collection[str], what: str) -> None:
    """Raise DeniedError if the listener does not serve the groups of the holder's roles. `what` is the request."""
    groups = {GROUPS_OF_ROLES[role] for role in holder.roles}
    if not groups & set(served):
        why = f"this listener does not serve {min(groups)}"
        raise DeniedError(
            request_codes.LISTENER_DENIED, f"{holder.called} may not {what} here: {why}", actor=holder.label
        )


def require_consent(holder: Holder, what: str, now: float) -> None:
    """Raise DeniedError unless the holder may do the sensitive operation `what` at the Unix second `now`.

    A person must have signed in recently with a second factor (RFC 9470 section 3). A contact has no second factor, and
    must have signed in recently. A machine needs permission in the configuration.
    """
    if not holder.is_person:
        if not holder.may_sensitive:
            why = "it is sensitive: write sensitive: true beside the token's name in the collector's file"
            raise DeniedError(request_codes.CONSENT_MISSING, f"{holder.called} may not {what}: {why}")
    elif holder.contact_role is not None:
        if not is_factor_recent(holder.signed_in_at, now):
            why = f"sign in again; a sign-in counts for {FACTOR_SECONDS_MAX // 60} minutes"
            raise DeniedError(request_codes.SIGN_IN_TOO_OLD, f"insufficient_user_authentication: {why}")
    elif not is_factor_recent(holder.factor_at, now):
        error = 'error="insufficient_user_authentication", error_description="a second factor is needed"'
        why = f"sign in with a second factor; the last time counts for {FACTOR_SECONDS_MAX // 60} minutes"
        challenge = {"WWW-Authenticate": f"Bearer {error}, max_age={FACTOR_SECONDS_MAX}"}
        raise DeniedError(request_codes.SECOND_FACTOR_NEEDED, f"insufficient_user_authentication: {why}", challenge)


def require_edge(holder: Holder, edge: str) -> None:
    """Raise DeniedError unless the holder may ship batches of this edge."""
    if holder.edge not in (None, edge):
        raise DeniedError(request_codes.OTHER_EDGE, f"{holder.called} is bound to another edge")


def require_own(holder: Holder, customer: str | None) -> None:
    """Raise DeniedError if the holder is bound to a customer other than `customer`."""
    if holder.customer is not None and holder.customer != customer:
        raise DeniedError(request_codes.OTHER_CUSTOMER, f"{holder.called} is bound to another customer")


def customer_of(holder: Holder, customer: str | None) -> str | None:
    """Return the customer to read for a request about `customer` (None: all customers). Raises DeniedError."""
    if holder.customer is None or customer is None:
        return holder.customer or customer
    require_own(holder, customer)
    return customer
