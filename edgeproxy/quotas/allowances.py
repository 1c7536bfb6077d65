"""Which quotas hold a customer, of the configuration or of the database."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.accounts import customers
from edgeproxy.accounts.change import Refused
from edgeproxy.config.allowance import allowance_of, with_caps
from edgeproxy.config.collector import Settings
from edgeproxy.config.models import Customer, Quota
from edgeproxy.database import schema

NAMES_MAX = 500
"""Customers that one statement looks up."""


class Held(NamedTuple):
    """A customer, and the quotas that hold it."""

    customer: str
    quotas: tuple[Quota, ...]
    is_leaving: bool = False
    """Whether the customer is being deleted."""

    def of(self, meter: str) -> Quota | None:
        """Return the quota of what exists of this meter; None where there may be any number."""
        return next((quota for quota in self.quotas if quota.meter == meter and quota.per is None), None)


def quotas_of(customer: Customer, settings: Settings) -> tuple[Quota, ...]:
    """Return the quotas of a customer; raises Refused where its tier is not known here."""
    tier = settings.tiers.get(customer.tier)
    if tier is not None:
        return with_caps(allowance_of(tier, customer), settings.meters).quotas
    if customer.quotas is not None:
        return customer.quotas
    raise Refused(409, f"tiers of collector.yaml has no {customer.tier}, so nobody can tell what is included")


async def find(connection: AsyncConnection, ref: str, settings: Settings) -> Held:
    """Return a customer by id or name, with its quotas; what files say of a name counts. Raises Refused."""
    row = None if ref in settings.customers else await customers.look(connection, ref)
    name = ref if row is None else str(row.name)
    if name in settings.customers:
        return Held(name, quotas_of(settings.customers[name], settings))
    if row is None:
        raise Refused(404, customers.NOT_THERE)
    known = Customer.model_validate_json(row.settings)
    return Held(name, quotas_of(known, settings), row.deleting_since is not None)


async def among(connection: AsyncConnection, names: Iterable[str], settings: Settings) -> Mapping[str, Held]:
    """Return those of these customers whose quotas are known here, by name."""
    found: dict[str, Customer] = {}
    asked = []
    for name in names:
        if name in settings.customers:
            found[name] = settings.customers[name]
        else:
            asked.append(name)
    of = schema.customers.c
    for at in range(0, len(asked), NAMES_MAX):
        some = sa.select(of.name, of.settings).where(of.name.in_(asked[at : at + NAMES_MAX]))
        for name, said in await connection.execute(some):
            found[name] = Customer.model_validate_json(said)
    held = {}
    for name, customer in found.items():
        try:
            held[name] = Held(name, quotas_of(customer, settings))
        except Refused:
            continue  # Nothing can be said of it.
    return held
