"""Refunds at Stripe: held money is sent back once, and the result is booked.

The money stays held until the result is known. A retry first looks at Stripe for an earlier refund.
"""

from contextlib import suppress
from typing import Literal

from edgeproxy.collector.billing.credits import credits
from edgeproxy.collector.billing.credits.credits import HeldRefund
from edgeproxy.collector.billing.credits.purchases import REFUND, apply_refund
from edgeproxy.collector.billing.stripe.client import CallOutcome, Stripe, StripeCallError, StripeObject
from edgeproxy.collector.database.database import CONNECTION_ERRORS, Database

RefundState = Literal["held", "paid", "failed"]
STATES: dict[str, RefundState] = {"succeeded": "paid", "failed": "failed", "canceled": "failed"}
UNKNOWN = frozenset({CallOutcome.FAILED, CallOutcome.REUSED})
"""Outcomes that Stripe repeats for each use of an Idempotency-Key."""


class RefundSender:
    """Sends held refunds to Stripe."""

    def __init__(self, database: Database, stripe: Stripe) -> None:
        self._database = database
        self._stripe = stripe
        self._tries: dict[str, int] = {}

    async def send_refund(self, held: HeldRefund) -> RefundState:
        """Send the money of a refund back, once. Return its last known state.

        Raises StripeCallError if the result is unknown, or if the call cannot be made now. The money then stays held.
        """
        refund = await self._find_refund(held)
        if refund is None:
            try:
                refund = await self._stripe.call(
                    "v1.refunds.create",
                    key=f"{held.id}_refund_{self._tries.get(held.id, 0)}",
                    payment_intent=held.intent,
                    amount=held.cents,
                    metadata={REFUND: held.id},
                )
            except StripeCallError as error:
                if error.outcome in UNKNOWN:
                    self._tries[held.id] = self._tries.get(held.id, 0) + 1
                if error.outcome is not CallOutcome.REFUSED:
                    raise
                async with self._database.writing() as connection:
                    await credits.settle_refund(connection, held.id, paid=False, refund="")
                return "failed"
        async with self._database.writing() as connection:
            await apply_refund(connection, refund)
        return STATES.get(refund["status"], "held")

    async def try_refund(self, held: HeldRefund) -> None:
        """Send the money of a refund back.

        If Stripe or the database fails, it stays held and the job sends it later.
        """
        with suppress(StripeCallError, *CONNECTION_ERRORS):
            await self.send_refund(held)

    async def _find_refund(self, held: HeldRefund) -> StripeObject | None:
        """Return the earlier refund at Stripe, or None."""
        refunds = await self._stripe.list_all("v1.refunds.list", payment_intent=held.intent)
        return next((refund for refund in refunds if (refund.get("metadata") or {}).get(REFUND) == held.id), None)
