"""Handlers that end subscriptions, and list the reasons why subscriptions ended."""

import time

from aiohttp import web
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.base.timestamps import format_timestamp
from edgeproxy.collector.accounts import customers
from edgeproxy.collector.api.cancellations.models import Cancellation, CancelSubscriptionRequest
from edgeproxy.collector.api.changes import ChangeResult, parse_if_match
from edgeproxy.collector.api.customer_billing import CustomerBillingHandlers, CustomerChangeQuery, CustomerQuery
from edgeproxy.collector.api.endpoint import Call, Nothing
from edgeproxy.collector.api.responses import answer
from edgeproxy.collector.billing.subscriptions import cancellations, changes, subscriptions
from edgeproxy.collector.billing.subscriptions.cancellations import Feedback, ListedCancellation


class CancellationHandlers(CustomerBillingHandlers):
    """Handlers of cancellations."""

    async def end_subscription(self, call: Call[CustomerChangeQuery, CancelSubscriptionRequest]) -> web.Response:
        """Cancel a subscription, and record the reason."""
        return await self._cancel(call, call.body.when, Feedback(call.body.reason, call.body.comment))

    async def _cancel(
        self,
        call: Call[CustomerChangeQuery, CancelSubscriptionRequest | Nothing],
        when: changes.When,
        feedback: Feedback | None,
    ) -> web.Response:
        customer = self._get_customer(call.holder, call.query)

        async def make(connection: AsyncConnection) -> ChangeResult:
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
            return ChangeResult(200, subscription, version)

        return await self._change(call, make)

    async def list_cancellations(self, call: Call[CustomerQuery, Nothing]) -> web.Response:
        """List the reasons that a customer gave for ending its plans."""
        customer = self._get_customer(call.holder, call.query)
        async with self._database.reading() as connection:
            owner = await customers.get_row(connection, customer)
            listed = await cancellations.list_cancellations(connection, owner.id)
        return answer(200, {"cancellations": [cancellation_to_response(one) for one in listed]})


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
