"""The steps of an import: links of customers, and subscriptions that end at Stripe with the paid period.

Each step begins with a row here and may be repeated: after a crash, the next run does the rest, and a further run does
nothing. A customer is charged at Stripe or here, but never twice for the same time: a row whose step at Stripe never
happened is dropped when its time comes (period_close/imported_starts.py).
"""

from typing import NamedTuple

import sqlalchemy as sa

from edgeproxy.collector.accounts import audit
from edgeproxy.collector.accounts.audit import AuditEntry, Caller
from edgeproxy.collector.accounts.change import ChangeRejectedError
from edgeproxy.collector.billing.period_close.imported_starts import compute_beginning
from edgeproxy.collector.billing.stripe.client import CallOutcome, Stripe, StripeCallError, StripeObject
from edgeproxy.collector.billing.stripe.customers import CUSTOMER, find_payment_method
from edgeproxy.collector.billing.stripe_balance.customer_balances import CustomerBalances
from edgeproxy.collector.billing.stripe_import.customer_mapping import CustomerMatch
from edgeproxy.collector.billing.stripe_import.import_plan import ImportPlan, ImportStep, SubscriptionPlan
from edgeproxy.collector.billing.stripe_import.plan_mapping import IMPORTED
from edgeproxy.collector.billing.subscriptions import imported_rows, imported_subscriptions
from edgeproxy.collector.database.billing_tables import billing_customers
from edgeproxy.collector.database.database import Database

WHY = "edgeproxy_import_why"
"""The metadata key of a Stripe subscription for the reason of its end."""
REASON = "edgeproxy charges it from the end of this period on"
ENDED = (ImportStep.TAKE_OVER, ImportStep.FINISH, ImportStep.TAKEN_OVER)
"""The steps of subscriptions that Stripe no longer charges."""


class Importer(NamedTuple):
    """Carries out a plan, for a caller of the audit log."""

    database: Database
    stripe: Stripe
    caller: Caller

    async def apply(self, plan: ImportPlan) -> ImportPlan:
        """Apply a plan, and return it with the result for each subscription.

        Raises StripeCallError; the plan may then be applied again.
        """
        charged = {
            str(subscription.stripe_subscription["customer"]): subscription
            for subscription in plan.subscriptions
            if subscription.step in ENDED
        }
        for match in plan.customers:
            if match.customer is not None:
                taken = charged.get(match.stripe_id)
                await self._link(match, None if taken is None else taken.stripe_subscription)
        return plan._replace(subscriptions=[await self._take_over(subscription) for subscription in plan.subscriptions])

    async def _link(self, match: CustomerMatch, stripe_subscription: StripeObject | None) -> None:
        """Link a customer to its Stripe customer.

        If that has no payment method, it gets the one of a subscription that is taken over.
        """
        customer, theirs = match.customer, match.stripe_customer
        assert customer is not None
        if customer.stripe_id is None:
            row = {"customer": customer.id, "stripe_id": match.stripe_id, "livemode": int(theirs["livemode"])}
            async with self.database.writing() as connection:
                await connection.execute(sa.insert(billing_customers), [row])
                entry = AuditEntry("customer.import", customer.name, None, {"stripe": match.stripe_id, "by": match.by})
                await audit.append_entry(connection, self.caller, entry)
        changes: StripeObject = {}
        if (theirs.get("metadata") or {}).get(CUSTOMER) != customer.id:
            changes["metadata"] = {CUSTOMER: customer.id}
        if stripe_subscription is not None and find_payment_method(theirs) is None:
            if method := stripe_subscription.get("default_payment_method"):
                changes["invoice_settings"] = {"default_payment_method": method}
            elif source := stripe_subscription.get("default_source"):
                changes["default_source"] = source
        if changes:
            await self.stripe.call("v1.customers.update", match.stripe_id, **changes)
        await CustomerBalances(self.database, self.stripe).book_customer(match.stripe_id)

    async def _take_over(self, one: SubscriptionPlan) -> SubscriptionPlan:
        """Record a subscription, and let it end at Stripe with its period."""
        row = one.row
        if one.step not in (ImportStep.TAKE_OVER, ImportStep.FINISH):
            return one
        assert row is not None
        if one.step is ImportStep.TAKE_OVER:
            try:
                async with self.database.writing() as connection:
                    await imported_subscriptions.record_imported(connection, self.caller, row)
            except ChangeRejectedError as error:  # Something has changed since the plan.
                return one._replace(step=ImportStep.LEAVE, why=f"here {error.why}")
        try:
            ended = await self.stripe.call(
                "v1.subscriptions.update",
                row.stripe_id,
                cancel_at_period_end=True,
                metadata={IMPORTED: row.customer, WHY: REASON},
            )
        except StripeCallError as error:
            if error.outcome is not CallOutcome.REFUSED:
                raise
            why = f"Stripe refuses to end it: {error.message}"
            async with self.database.writing() as connection:
                await imported_subscriptions.drop_imported(connection, self.caller, row, why)
            return one._replace(step=ImportStep.LEAVE, why=why)
        begins_at = compute_beginning(ended)
        if begins_at != row.begins_at:  # It was renewed meanwhile.
            async with self.database.writing() as connection:
                await imported_rows.update_waiting(connection, row.stripe_id, begins_at=begins_at)
        return one._replace(step=ImportStep.TAKEN_OVER, row=row._replace(begins_at=begins_at))
