"""Money on its way back: what was held here is asked of the payment service, and what becomes of it is booked.

Whatever is killed meanwhile, the money stays held until somebody has found out: whoever takes it up again looks first
whether it went back already.
"""

from typing import Any, Literal

from edgeproxy.collector.billing.credits import credits
from edgeproxy.collector.billing.credits.credits import Held
from edgeproxy.collector.billing.credits.purchases import REFUND, apply_refund
from edgeproxy.collector.billing.stripe.client import Outcome, Stripe, StripeFailure
from edgeproxy.collector.database.database import Database

State = Literal["held", "paid", "failed"]
STATES: dict[str, State] = {"succeeded": "paid", "failed": "failed", "canceled": "failed"}
UNKNOWN = frozenset({Outcome.FAILED, Outcome.REUSED})
"""What is answered the same again to the same Idempotency-Key."""


class Refunds:
    """Has money go back."""

    def __init__(self, database: Database, stripe: Stripe) -> None:
        self._database = database
        self._stripe = stripe
        self._tries: dict[str, int] = {}

    async def send(self, held: Held) -> State:
        """Have the money of a refund go back, once; what has become of it as far as is known now.

        Raises StripeFailure where that is not known, or cannot be done now; then it stays held.
        """
        there = await self._find(held)
        if there is None:
            try:
                there = await self._stripe.call(
                    "v1.refunds.create",
                    key=f"{held.id}_refund_{self._tries.get(held.id, 0)}",
                    payment_intent=held.intent,
                    amount=held.cents,
                    metadata={REFUND: held.id},
                )
            except StripeFailure as failure:
                if failure.outcome in UNKNOWN:
                    self._tries[held.id] = self._tries.get(held.id, 0) + 1
                if failure.outcome is not Outcome.REFUSED:
                    raise
                async with self._database.writing() as connection:
                    await credits.settle(connection, held.id, paid=False, refund="")
                return "failed"
        async with self._database.writing() as connection:
            await apply_refund(connection, there)
        return STATES.get(there["status"], "held")

    async def _find(self, held: Held) -> dict[str, Any] | None:
        """The refund at the payment service, where it was made before."""
        found = await self._stripe.every("v1.refunds.list", payment_intent=held.intent)
        return next((one for one in found if (one.get("metadata") or {}).get(REFUND) == held.id), None)
