"""The roles of a customer's contacts, and which of them may do what. Pure; docs/pages/pages.md#colleagues."""

from typing import Literal, get_args

ContactRole = Literal["owner", "developer", "billing"]
OWNER: ContactRole = "owner"
"""The role that may do everything, and alone may invite and remove colleagues."""
CONTACT_ROLES: tuple[ContactRole, ...] = get_args(ContactRole)

EVERYBODY = frozenset(CONTACT_ROLES)
OWNERS = frozenset({OWNER})
BUILDERS: frozenset[ContactRole] = frozenset({"owner", "developer"})
"""The roles that see and change keys and webhooks."""
PAYERS: frozenset[ContactRole] = frozenset({"owner", "billing"})
"""The roles that see invoices and credits, pay, and change the plan."""


def parse_role(stored: str | None) -> ContactRole:
    """Return a role as it is stored; that of a session from before there were roles is the owner's."""
    return OWNER if stored is None else next(role for role in CONTACT_ROLES if role == stored)
