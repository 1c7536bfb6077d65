"""The plan of an import: the mapped customers and subscriptions, and the ones left at Stripe with reasons.

This module writes nothing.
"""

from collections import Counter
from collections.abc import Mapping
from enum import Enum
from typing import NamedTuple

import orjson
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.base.timestamps import format_timestamp
from edgeproxy.collector.accounts.change import ChangeRejectedError
from edgeproxy.collector.accounts.customer_rows import fetch_rows
from edgeproxy.collector.accounts.customers import ALERT_ADDRESS
from edgeproxy.collector.billing.period_close.imported_starts import compute_beginning
from edgeproxy.collector.billing.rating import periods
from edgeproxy.collector.billing.rollout import charging
from edgeproxy.collector.billing.stripe.client import StripeObject
from edgeproxy.collector.billing.stripe.customers import CUSTOMER
from edgeproxy.collector.billing.stripe_import import plan_mapping
from edgeproxy.collector.billing.stripe_import.account import StripeAccount
from edgeproxy.collector.billing.stripe_import.customer_mapping import CustomerMatch, OurCustomer, map_customers
from edgeproxy.collector.billing.stripe_import.map_file import MapRow
from edgeproxy.collector.billing.subscriptions import eligibility, imported_rows, plan_versions
from edgeproxy.collector.billing.subscriptions.imported_rows import ImportedRow
from edgeproxy.collector.billing.subscriptions.subscription_rows import get_subscriber
from edgeproxy.collector.database.billing_tables import billing_customers
from edgeproxy.collector.database.page_tables import contacts
from edgeproxy.collector.database.schema import customers as customers_table
from edgeproxy.collector.encryption import rows as encrypted_rows
from edgeproxy.config.collector.catalog import Plan
from edgeproxy.config.collector.settings import CollectorSettings


class ImportOptions(NamedTuple):
    """The choices of the operator."""

    rows: Mapping[str, MapRow] = {}
    """The rows of the file, by Stripe's ids."""
    metadata_key: str = CUSTOMER
    """The metadata key of Stripe customers for our name, id or `external_id`."""
    since: float = 0.0
    """No subscription begins here before this Unix second."""


class ImportStep(Enum):
    """The action of an import on a subscription."""

    TAKE_OVER = "take over"
    FINISH = "finish"
    """It is recorded here, but not ended at Stripe yet."""
    TAKEN_OVER = "taken over"
    LEAVE = "leave"


class SubscriptionPlan(NamedTuple):
    """A subscription at Stripe, and the plan for it."""

    stripe_subscription: StripeObject
    step: ImportStep
    why: str = ""
    """The reason to leave it, or a remark."""
    match: CustomerMatch | None = None
    row: ImportedRow | None = None
    """The row recorded here, or to record."""
    by: str | None = None
    """How its plan was recognized."""
    fee: int | None = None
    """The fee from then on, in the smallest unit of the plan's currency."""


class ImportPlan(NamedTuple):
    """The plan of an import."""

    account: StripeAccount
    customers: list[CustomerMatch]
    subscriptions: list[SubscriptionPlan]


async def list_our_customers(connection: AsyncConnection) -> list[OurCustomer]:
    """Return all customers who are not erased, with their identifiers."""
    # Addresses may be encrypted, and the database cannot compare encrypted ones.
    emails: dict[str, set[str]] = {}
    for contact in await encrypted_rows.fetch_rows(connection, contacts.name, sa.select(contacts)):
        emails.setdefault(str(contact["customer"]), set()).add(str(contact["email"]))
    columns, known = customers_table.c, billing_customers.c
    accounts = await connection.execute(sa.select(known.customer, known.stripe_id))
    stripe_ids = {account.customer: account.stripe_id for account in accounts}
    statement = sa.select(customers_table).where(columns.erased_at.is_(None)).order_by(columns.id)
    return [
        OurCustomer(
            row.id,
            row.name,
            row.external_id,
            frozenset(emails.get(row.id, set()) | {orjson.loads(row.metadata).get(ALERT_ADDRESS, "").lower()} - {""}),
            stripe_ids.get(row.id),
            row.deleting_since is not None,
        )
        for row in await fetch_rows(connection, statement)
    ]


async def compute_plan(
    connection: AsyncConnection,
    account: StripeAccount,
    settings: CollectorSettings,
    options: ImportOptions,
    now: float,
) -> ImportPlan:
    """Return the plan of an import of an account at a Unix second."""
    matches = map_customers(account.customers, await list_our_customers(connection), options.rows, options.metadata_key)
    rows = {row.stripe_id: row for row in await imported_rows.fetch_rows(connection)}
    assert settings.billing is not None
    planner = _Planner(
        {match.stripe_id: match for match in matches},
        rows,
        # Counted over the whole account: a subscription that is left here goes on at Stripe.
        Counter(str(subscription["customer"]) for subscription in account.subscriptions),
        await charging.fetch_charging(connection, settings.billing),
        await plan_versions.fetch_plans_on_sale(connection, settings.plans, now),
        options,
    )
    plans = [
        await planner.plan_subscription(connection, subscription, account.prices, now)
        for subscription in account.subscriptions
    ]
    return ImportPlan(account, matches, plans)


class _Planner(NamedTuple):
    """The data for the plan of each subscription."""

    matches: Mapping[str, CustomerMatch]
    rows: Mapping[str, ImportedRow]
    counts: Counter[str]
    """The number of subscriptions of each Stripe customer."""
    charging: charging.Charging
    plans: dict[str, Plan]
    """The plans on sale."""
    options: ImportOptions

    async def plan_subscription(
        self,
        connection: AsyncConnection,
        stripe_subscription: StripeObject,
        prices: Mapping[str, StripeObject],
        now: float,
    ) -> SubscriptionPlan:
        """Return the plan for a subscription. It is taken over only if nothing prevents it."""
        row = self.rows.get(stripe_subscription["id"])
        match = self.matches.get(stripe_subscription["customer"])
        # A dropped row is history. The subscription may be imported again.
        if row is not None and row.state != imported_rows.DROPPED:
            return self._plan_recorded(stripe_subscription, row, match)
        left = SubscriptionPlan(stripe_subscription, ImportStep.LEAVE, match=match)
        if match is None or match.customer is None:
            return left._replace(why="its customer is not mapped")
        if (why := plan_mapping.find_obstacle(stripe_subscription, match.stripe_customer)) is not None:
            return left._replace(why=why)
        # All of them are left: which of them is the right one is no question for a program.
        if (count := self.counts[match.stripe_id]) > 1:
            return left._replace(why=f"its customer has {count} subscriptions, and can have one here")
        return await self._plan_mapped(connection, left, match.customer, prices, now)

    async def _plan_mapped(
        self,
        connection: AsyncConnection,
        left: SubscriptionPlan,
        customer: OurCustomer,
        prices: Mapping[str, StripeObject],
        now: float,
    ) -> SubscriptionPlan:
        """Return the plan for a subscription of a mapped customer that nothing at Stripe prevents."""
        stripe_subscription, plans = left.stripe_subscription, self.plans
        mapped = plan_mapping.map_subscription(stripe_subscription, prices, plans, self.options.rows, customer.name)
        if mapped.version is None:
            return left._replace(why=mapped.why)
        begins_at, plan = compute_beginning(stripe_subscription), plans[mapped.version]
        row = ImportedRow(
            stripe_id=stripe_subscription["id"],
            customer=customer.id,
            plan_version=mapped.version,
            is_yearly=int(mapped.is_yearly),
            anchor=compute_anchor(stripe_subscription["billing_cycle_anchor"], begins_at),
            begins_at=begins_at,
            created_at=int(now * 1000),
        )
        left = left._replace(row=row, by=mapped.by, fee=plan.year_fee if mapped.is_yearly else plan.fee)
        if (why := await self._find_conflict(connection, row, customer.name, now)) is not None:
            return left._replace(why=why)
        is_unpaid = stripe_subscription["status"] == "past_due"
        note = "what is past due there stays to be paid there" if is_unpaid else ""
        return left._replace(step=ImportStep.TAKE_OVER, why=note)

    def _plan_recorded(
        self, stripe_subscription: StripeObject, row: ImportedRow, match: CustomerMatch | None
    ) -> SubscriptionPlan:
        """Return the plan for a subscription that is recorded here."""
        recorded = SubscriptionPlan(stripe_subscription, ImportStep.TAKEN_OVER, "", match, row)
        if row.state == imported_rows.BEGUN or plan_mapping.is_taken_over(stripe_subscription):
            return recorded
        if plan_mapping.IMPORTED in (stripe_subscription.get("metadata") or {}):
            why = "somebody had it go on at Stripe: it is dropped here when its period ends"
            return recorded._replace(step=ImportStep.LEAVE, why=why)
        # An earlier run may have ended between the record here and the change at Stripe: only the second step is left.
        return recorded._replace(step=ImportStep.FINISH)

    async def _find_conflict(self, connection: AsyncConnection, row: ImportedRow, name: str, now: float) -> str | None:
        """Return the reason why our side cannot take over a subscription, or None."""
        if not self.charging.bills(name):
            return f"{name} is not charged here yet, so that its time from then on would be free"
        # Stripe would renew it while it is taken over.
        if row.begins_at <= now:
            return "its period ends at this moment: import again"
        if row.begins_at < self.options.since:
            return f"it renews before, on {format_timestamp(row.begins_at * 1000)}: import again after that"
        try:
            subscriber = await get_subscriber(connection, row.customer)
            await eligibility.check_may_subscribe(connection, subscriber, row.begins_at)
        except ChangeRejectedError as error:
            return f"here {error.why}"
        return None


def compute_anchor(billing_cycle_anchor: int, begins_at: int) -> int:
    """Return the start of the count of months, so that periods end as they did at Stripe.

    This is so even after a month that was too short for their day.
    """
    anchor = -(-billing_cycle_anchor // periods.MINUTE) * periods.MINUTE
    if anchor <= begins_at and periods.period_at(begins_at, anchor).start == begins_at:
        return anchor
    return begins_at
