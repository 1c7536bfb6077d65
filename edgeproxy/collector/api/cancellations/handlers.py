"""Handlers that end subscriptions, and list the reasons why subscriptions ended."""

import time

from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.base.timestamps import format_timestamp
from edgeproxy.collector.accounts import customers
from edgeproxy.collector.api.cancellations.models import Cancellation, CancellationList, CancelSubscriptionRequest
from edgeproxy.collector.api.changes import parse_if_match
from edgeproxy.collector.api.customer_billing import CustomerBillingHandlers, CustomerChangeQuery, CustomerQuery
from edgeproxy.collector.api.endpoint import BILLING, MONEY_READERS, OWN, UPDATE, Call, Nothing, get, post
from edgeproxy.collector.api.group import Group
from edgeproxy.collector.api.request_limits import RequestRate
from edgeproxy.collector.api.responses import Result
from edgeproxy.collector.billing.subscriptions import cancellations, changes, subscriptions
from edgeproxy.collector.billing.subscriptions.cancellations import Feedback, ListedCancellation
from edgeproxy.collector.billing.subscriptions.subscription_response import ChangedSubscription


class CancellationHandlers(CustomerBillingHandlers):
    """Handlers of cancellations."""

    @post(
        "/billing/subscription/cancel",
        roles=BILLING | OWN,
        example={"reason": "missing_features", "comment": "We need invoices in Swiss francs."},
        change=UPDATE,
        errors={404: "Billing is not configured, or the customer or its subscription does not exist."},
        rate=RequestRate(10, "customer"),
    )
    async def end_subscription(
        self, call: Call[CustomerChangeQuery, CancelSubscriptionRequest]
    ) -> Result[ChangedSubscription]:
        """Cancel a subscription as DELETE does, and give the reason."""
        return await self._cancel(call, call.body.when, Feedback(call.body.reason, call.body.comment))

    async def _cancel(
        self,
        call: Call[CustomerChangeQuery, CancelSubscriptionRequest | Nothing],
        when: changes.When,
        feedback: Feedback | None,
    ) -> Result[ChangedSubscription]:
        customer = self._get_customer(call.holder, call.query)

        async def make(connection: AsyncConnection) -> Result[ChangedSubscription]:
            subscription, version = await subscriptions.cancel_subscription(
                connection,
                call.caller,
                customer,
                when,
                settings=self._settings,
                now=time.time(),
                match=parse_if_match(call.request),
                feedback=feedback,
            )
            return Result(subscription, version)

        return await self._change(call, make)

    @get(
        "/billing/cancellations",
        roles=MONEY_READERS | OWN,
        errors={404: "Billing is not configured, or the customer does not exist."},
        rate=RequestRate(100, "customer"),
    )
    async def list_cancellations(self, call: Call[CustomerQuery, Nothing]) -> CancellationList:
        """List the reasons that a customer gave for ending its plans."""
        customer = self._get_customer(call.holder, call.query)
        async with self._database.reading() as connection:
            owner = await customers.get_row(connection, customer)
            listed = await cancellations.list_cancellations(connection, owner.id)
        return {"cancellations": [cancellation_to_response(one) for one in listed]}


def cancellation_to_response(one: ListedCancellation) -> Cancellation:
    """Return a cancellation in the API's form."""
    return {
        "subscription": one.subscription,
        "plan": one.plan_version,
        "reason": one.reason,
        "comment": one.comment,
        "created_at": format_timestamp(one.created_at),
        "cancel_at": None if one.cancel_at is None else format_timestamp(one.cancel_at * 1000),
    }


GROUP = Group("cancellations", "The reasons that customers gave for ending their plans.", CancellationHandlers)
