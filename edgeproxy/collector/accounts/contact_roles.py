"""The roles of a customer's contacts, and their permissions. Pure; docs/pages/pages.md#colleagues."""

from typing import Literal, get_args

ContactRole = Literal["owner", "developer", "billing"]
OWNER: ContactRole = "owner"
"""The role that may do everything. Only owners may invite and remove colleagues."""
CONTACT_ROLES: tuple[ContactRole, ...] = get_args(ContactRole)

EVERYBODY = frozenset(CONTACT_ROLES)
OWNERS = frozenset({OWNER})
BUILDERS: frozenset[ContactRole] = frozenset({"owner", "developer"})
"""The roles that see and change keys and webhooks."""
PAYERS: frozenset[ContactRole] = frozenset({"owner", "billing"})
"""The roles that see invoices and credits, pay, and change the plan."""


def parse_role(stored: str | None) -> ContactRole:
    """Return a role from its stored form. A session from before roles existed has the owner's role."""
    return OWNER if stored is None else next(role for role in CONTACT_ROLES if role == stored)
