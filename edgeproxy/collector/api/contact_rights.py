"""The endpoints that a contact of a customer may call, by the contact's role. Pure.

A customer's tokens may call all endpoints of customers except PEOPLE_ONLY, because a found token is no person. An
endpoint without a row here is only for owners.
"""

from collections.abc import Mapping
from typing import NamedTuple

from edgeproxy.collector.accounts.contact_roles import BUILDERS, EVERYBODY, OWNERS, PAYERS
from edgeproxy.collector.alerts.kinds import ALERT_POLICIES, AlertKind
from edgeproxy.collector.api.auth import DeniedError, Holder
from edgeproxy.collector.problems import request_codes


class Rights(NamedTuple):
    """The roles that may read in a group of endpoints, and the roles that may change."""

    read: frozenset[str]
    change: frozenset[str]


BY_GROUP: Mapping[str, Rights] = {
    "customers": Rights(EVERYBODY, OWNERS),
    "keys": Rights(BUILDERS, BUILDERS),
    "webhook-endpoints": Rights(BUILDERS, BUILDERS),
    "access": Rights(EVERYBODY, OWNERS),
    "quotas": Rights(EVERYBODY, OWNERS),
    "usage": Rights(EVERYBODY, OWNERS),
    "alerts": Rights(EVERYBODY, EVERYBODY),
    "billing": Rights(PAYERS, PAYERS),
    "billing-details": Rights(PAYERS, PAYERS),
    "cancellations": Rights(PAYERS, PAYERS),
    "coupons": Rights(PAYERS, PAYERS),
    "invoices": Rights(PAYERS, PAYERS),
    "spend-alerts": Rights(PAYERS, PAYERS),
    "credits": Rights(PAYERS, PAYERS),
    "price-changes": Rights(PAYERS, PAYERS),
}
"""Rights by the name of the group."""
BY_ENDPOINT: Mapping[tuple[str, str], frozenset[str]] = {
    ("GET", "/v1/incidents"): EVERYBODY,  # The status page publishes them.
    # Developers need the included quantities and their use. They do not show payments.
    ("GET", "/billing/subscription"): EVERYBODY,
    ("GET", "/billing/subscription/plan"): EVERYBODY,
    ("GET", "/billing/usage"): EVERYBODY,
    ("GET", "/billing/usage/{meter}"): EVERYBODY,
    ("GET", "/billing/quotas"): EVERYBODY,
    ("GET", "/v1/usage/value"): PAYERS,  # Spending.
    ("PUT", "/v1/customers/{customer}/preferred-region"): BUILDERS,
    # The personal data of all contacts.
    ("GET", "/v1/customers/{customer}/data"): OWNERS,
}
"""Rights of endpoints that differ from their group."""
OF_MONEY = frozenset(
    {
        AlertKind.SPEND_REACHED,
        AlertKind.TRIAL_WILL_END,
        AlertKind.SPEND_SPIKE,
        AlertKind.PAYMENT_FAILED,
        AlertKind.INVOICE_UNPAID,
        AlertKind.PRICE_CHANGE,
    }
)
"""Kinds of alerts that show spending, debts or payments."""
OF_BUILDING = frozenset(
    {
        AlertKind.KEY_ROTATION_DUE,
        AlertKind.KEY_ROTATION_OVERDUE,
        AlertKind.KEY_ENDS_SOON,
        AlertKind.KEY_BUDGET_REACHED,
        AlertKind.WEBHOOK_DISABLED,
    }
)
"""Kinds of alerts that name keys and webhooks."""
PEOPLE_ONLY = frozenset(
    {
        ("POST", "/v1/customers/{customer}/contacts"),
        ("POST", "/v1/customers/{customer}/contacts/remove"),
        ("GET", "/v1/customers/{customer}/data"),
        ("DELETE", "/v1/customers/{customer}"),
    }
)
"""Endpoints that no token of a customer may call."""


def find_roles(group: str, method: str, path: str) -> frozenset[str]:
    """Return the contact roles that may call an endpoint of a group."""
    rights = BY_GROUP.get(group, Rights(OWNERS, OWNERS))
    return BY_ENDPOINT.get((method, path), rights.read if method == "GET" else rights.change)


def find_alert_readers(kind: AlertKind) -> frozenset[str]:
    """Return the contact roles that may read, handle and mute a kind of alerts.

    A notice is only for the roles that get it by mail.
    """
    return ALERT_POLICIES[kind].contacts or (
        PAYERS if kind in OF_MONEY else BUILDERS if kind in OF_BUILDING else EVERYBODY
    )


def list_alert_kinds(holder: Holder) -> frozenset[AlertKind] | None:
    """Return the kinds of alerts that a contact may read; None (all kinds) if the holder is no contact."""
    if holder.contact_role is None:
        return None
    return frozenset(kind for kind in AlertKind if holder.contact_role in find_alert_readers(kind))


def require_contact(holder: Holder, group: str, method: str, path: str) -> None:
    """Raise DeniedError if a customer's holder may not call this endpoint of a group."""
    if holder.customer is None:
        return
    if holder.contact_role is None:
        if (method, path) in PEOPLE_ONLY:
            why = f"is bound to customer {holder.customer}, whose people alone may {method} {path}"
            raise DeniedError(request_codes.ROLE_DENIED, f"{holder.called} {why}")
    elif holder.contact_role not in find_roles(group, method, path):
        raise DeniedError(
            request_codes.ROLE_DENIED, f"{holder.called} (role {holder.contact_role}) may not {method} {path}"
        )
