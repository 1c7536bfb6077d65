"""Ends of subscriptions, and the reasons that customers gave for them."""

import time
from typing import Annotated, Literal

from pydantic import BeforeValidator, WithJsonSchema
from sqlalchemy.ext.asyncio import AsyncConnection
from typing_extensions import TypedDict

from edgeproxy.base.timestamps import format_timestamp
from edgeproxy.collector.accounts import customers
from edgeproxy.collector.accounts.models import Body
from edgeproxy.collector.api.changes import parse_if_match
from edgeproxy.collector.api.customer_billing import CustomerBillingHandlers, CustomerChangeQuery, CustomerQuery
from edgeproxy.collector.api.endpoint import BILLING, MONEY_READERS, OWN, UPDATE, Call, Nothing, get, post
from edgeproxy.collector.api.group import Group
from edgeproxy.collector.api.request_limits import RequestRate
from edgeproxy.collector.api.responses import Result
from edgeproxy.collector.billing.subscriptions import cancellations, changes, subscriptions
from edgeproxy.collector.billing.subscriptions.cancellations import CancellationReason, Feedback, ListedCancellation
from edgeproxy.collector.billing.subscriptions.subscription_response import ChangedSubscription
from edgeproxy.collector.languages.invisible import is_visible
from edgeproxy.config.units import read_text, value_error

COMMENT_CHARACTERS_MAX = 500
A_COMMENT = f"1 to {COMMENT_CHARACTERS_MAX} printable characters, on as many lines as you like"
COMMENT_SCHEMA = {
    "type": "string",
    "minLength": 1,
    "maxLength": COMMENT_CHARACTERS_MAX,
    "pattern": "^[!-~]([ -~]*[!-~])?$",
}


def read_comment(value: object) -> str:
    """Read a comment, which may have several lines."""
    text = read_text(value, A_COMMENT).strip()
    if not (1 <= len(text) <= COMMENT_CHARACTERS_MAX and is_visible(text.replace("\n", ""))):
        raise value_error("cannot be used", A_COMMENT)
    return text


class CancelSubscriptionRequest(Body):
    """The time when a subscription ends, and the reason."""

    when: Literal["now", "period_end"] = "period_end"
    """`period_end` ends the subscription when its paid period ends, `now` at once."""
    reason: CancellationReason | None = None
    """The reason, in Stripe's words; null if the customer gives none."""
    comment: Annotated[str, BeforeValidator(read_comment), WithJsonSchema(COMMENT_SCHEMA)] | None = None
    """The reason in the customer's own words; null if there are none."""


class Cancellation(TypedDict):
    """The reason why a customer has ended a plan, or will end it."""

    subscription: str
    """The id of the subscription."""
    plan: str
    """The version of the plan."""
    reason: CancellationReason | None
    """The reason, in Stripe's words; null if the customer gave none."""
    comment: str | None
    """The reason in the customer's own words; null if there are none."""
    created_at: str | None
    """The time when the customer gave the reason."""
    cancel_at: str | None
    """The time when the subscription ends, or ended."""


class CancellationList(TypedDict):
    """The reasons that a customer gave for its cancellations."""

    cancellations: list[Cancellation]
    """The latest cancellations, newest first."""


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
        self, call: Call[CustomerChangeQuery, CancelSubscriptionRequest], connection: AsyncConnection
    ) -> Result[ChangedSubscription]:
        """Cancel a subscription as DELETE does, and give the reason."""
        return await self._cancel(call, connection, call.body.when, Feedback(call.body.reason, call.body.comment))

    async def _cancel(
        self,
        call: Call[CustomerChangeQuery, CancelSubscriptionRequest | Nothing],
        connection: AsyncConnection,
        when: changes.When,
        feedback: Feedback | None,
    ) -> Result[ChangedSubscription]:
        customer = self._get_customer(call)
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

    @get(
        "/billing/cancellations",
        roles=MONEY_READERS | OWN,
        errors={404: "Billing is not configured, or the customer does not exist."},
        rate=RequestRate(100, "customer"),
    )
    async def list_cancellations(self, call: Call[CustomerQuery, Nothing]) -> CancellationList:
        """List the reasons that a customer gave for ending its plans."""
        customer = self._get_customer(call)
        async with self._database.reading() as connection:
            owner = await customers.get_row(connection, customer)
            listed = await cancellations.list_cancellations(connection, owner.id)
        return {"cancellations": [cancellation_to_response(cancellation) for cancellation in listed]}


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
