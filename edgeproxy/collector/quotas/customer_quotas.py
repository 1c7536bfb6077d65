"""The quotas of customers from the configuration and the database."""

from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.accounts import customers, documents, limit_raises
from edgeproxy.collector.accounts.change import ChangeRejectedError
from edgeproxy.collector.database import schema
from edgeproxy.collector.database.quota_tables import entitlements
from edgeproxy.collector.database.unreadable_rows import UnreadableRowError, parse_rows
from edgeproxy.collector.problems import account_codes
from edgeproxy.config.allowance import Allowance, apply_caps, compute_allowance, raise_allowance
from edgeproxy.config.collector.settings import CollectorSettings
from edgeproxy.config.customers import Customer, Subscriber
from edgeproxy.config.limits import Quota

COLUMNS = (schema.customers.c.name, schema.customers.c.settings, entitlements.c.quotas)
NAMES_MAX = 500
"""The most customers that one statement looks up."""


class CustomerQuotas(NamedTuple):
    """A customer with its quotas."""

    customer: str
    quotas: tuple[Quota, ...]
    is_leaving: bool = False
    """True if the customer is being deleted."""
    since: int = 0
    """The Unix second of the customer's creation; 0 for a customer of the configuration."""

    def find_quota(self, meter: str) -> Quota | None:
        """Return the tightest quota on allocations of this meter, or None if their number is unlimited."""
        quotas = [quota for quota in self.quotas if quota.meter == meter and quota.per is None]
        return min(quotas, key=lambda quota: (quota.cap == "soft", quota.included), default=None)


def resolve_quotas(customer: Customer, settings: CollectorSettings) -> tuple[Quota, ...]:
    """Return the quotas of a customer. Raises ChangeRejectedError if the collector lacks its tier."""
    tier = settings.tiers.get(customer.tier)
    if tier is not None:
        return apply_caps(compute_allowance(tier, customer), settings.meters).quotas
    if customer.quotas is not None:
        return customer.quotas + (customer.entitled if isinstance(customer, Subscriber) else ())
    raise ChangeRejectedError(
        account_codes.TIER_NOT_CONFIGURED,
        f"tiers of collector.yaml has no {customer.tier}, so nobody can tell what is included",
        params={"tier": customer.tier},
    )


async def get_quotas(connection: AsyncConnection, ref: str, settings: CollectorSettings) -> CustomerQuotas:
    """Return a customer by id or name with its quotas; the configuration takes precedence.

    Raises ChangeRejectedError.
    """
    row = None if ref in settings.customers else await customers.find_row(connection, ref)
    name = ref if row is None else str(row.name)
    if row is None and name not in settings.customers:
        raise ChangeRejectedError(account_codes.CUSTOMER_NOT_FOUND, customers.NOT_FOUND)
    known = await _get_customer(connection, name, settings)
    since = 0 if row is None else row.created_at // 1000
    is_leaving = row is not None and row.deleting_since is not None
    return CustomerQuotas(name, resolve_quotas(known, settings), is_leaving, since)


async def get_allowance(connection: AsyncConnection, ref: str, settings: CollectorSettings) -> tuple[str, Allowance]:
    """Return the name of a customer, by id or name, and its current allowance. Raises ChangeRejectedError.

    A customer of the configuration takes precedence.
    """
    row = None if ref in settings.customers else await customers.get_row(connection, ref)
    name = ref if row is None else row.name
    customer = await _get_customer(connection, name, settings)
    tier = settings.tiers.get(customer.tier)
    if tier is None:
        raise ChangeRejectedError(
            account_codes.TIER_NOT_CONFIGURED,
            f"tiers of collector.yaml has no {customer.tier}: its limits are not known",
            params={"tier": customer.tier},
        )
    allowance = compute_allowance(tier, customer)
    raised = None if row is None else (await limit_raises.fetch_raise(connection, name))["raised"]
    return name, allowance if raised is None else raise_allowance(allowance, raised["factor"])


async def fetch_quotas(
    connection: AsyncConnection, names: Iterable[str], settings: CollectorSettings
) -> Mapping[str, CustomerQuotas]:
    """Return the quotas of these customers by name, without customers whose tier the collector lacks."""
    quotas_by_customer = {}
    for name, customer in (await _fetch_customers(connection, names, settings)).items():
        try:
            quotas_by_customer[name] = CustomerQuotas(name, resolve_quotas(customer, settings))
        except ChangeRejectedError:
            continue  # The collector lacks its tier.
    return quotas_by_customer


async def _get_customer(connection: AsyncConnection, name: str, settings: CollectorSettings) -> Customer:
    """Return an existing customer. Raises UnreadableRowError if its row cannot be read."""
    if (customer := (await _fetch_customers(connection, [name], settings)).get(name)) is None:
        raise UnreadableRowError("the row of this customer cannot be read")
    return customer


async def _fetch_customers(
    connection: AsyncConnection, names: Iterable[str], settings: CollectorSettings
) -> dict[str, Customer]:
    """Return these customers by name, with the caps of their plans. The configuration's settings take precedence."""
    ordered = list(names)
    known: dict[str, Customer] = {name: settings.customers[name] for name in ordered if name in settings.customers}
    for at in range(0, len(ordered), NAMES_MAX):
        some = schema.customers.c.name.in_(ordered[at : at + NAMES_MAX])
        for name, subscriber in (await _fetch_subscribers(connection, some)).items():
            own = known.get(name)
            known[name] = subscriber if own is None else Subscriber(**dict(own), entitled=subscriber.entitled)
    return known


async def _fetch_subscribers(connection: AsyncConnection, condition: sa.ColumnElement[bool]) -> dict[str, Subscriber]:
    """Return these customers by name, with the entitlements of their plans except credits."""
    statement = sa.select(*COLUMNS).select_from(
        schema.customers.outerjoin(entitlements, entitlements.c.customer == schema.customers.c.id)
    )
    rows = await connection.execute(statement.where(condition))
    return dict(parse_rows(schema.customers.name, rows, _parse_subscriber, itemgetter(0)))


def _parse_subscriber(row: Sequence[str]) -> tuple[str, Subscriber]:
    """Return a customer's name, and the customer with the entitlements of its plan."""
    name, settings_json, quotas = row
    plan = documents.compute_entitlements(quotas, None, None)
    return name, Subscriber(**dict(Customer.model_validate_json(settings_json)), entitled=plan)
