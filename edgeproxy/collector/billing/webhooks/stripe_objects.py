"""What the processor asks of Stripe: an object as it is now, and the events of late."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from edgeproxy.collector.billing.credits.purchases import EXPANDED
from edgeproxy.collector.billing.stripe.client import Outcome, Stripe, StripeFailure
from edgeproxy.collector.billing.stripe.webhook_event import REPORT, REPORTS
from edgeproxy.collector.billing.webhooks.processor import Absent

RETRIEVE: Mapping[str, str] = {
    "invoice": "v1.invoices.retrieve",
    "subscription": "v1.subscriptions.retrieve",
    "customer": "v1.customers.retrieve",
    "charge": "v1.charges.retrieve",
    "refund": "v1.refunds.retrieve",
    "dispute": "v1.disputes.retrieve",
    "checkout.session": "v1.checkout.sessions.retrieve",
    REPORT: "v2.core.events.retrieve",
}
"""By type of object, what the package calls fetching one."""
PASSING = frozenset({Outcome.BUSY, Outcome.FAILED, Outcome.LOST, Outcome.DENIED})
"""Failures that say nothing of what was asked for."""
NOT_THERE = 404


class StripeObjects:
    """Objects and events of one account."""

    def __init__(self, stripe: Stripe) -> None:
        self._stripe = stripe

    async def fetch(self, object_type: str, id: str) -> Mapping[str, Any]:
        """Return an object as it is now; of one that is gone `{id, object, deleted: true}`. Raises Absent."""
        more = EXPANDED.get(object_type)
        found = await self._ask(RETRIEVE[object_type], id, **({} if more is None else {"expand": list(more)}))
        return found if found is not None else {"id": id, "object": object_type, "deleted": True}

    async def events(self, since: int) -> list[Mapping[str, Any]]:
        """List the snapshot events since a Unix second; raises Absent."""
        return await self._every("v1.events.list", created={"gte": since})

    async def thin_events(self, since: int) -> list[Mapping[str, Any]]:
        """List the thin events since a Unix second, of the types that are taken; raises Absent."""
        moment = datetime.fromtimestamp(since, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return await self._every("v2.core.events.list", created={"gte": moment}, types=sorted(REPORTS))

    async def event(self, id: str) -> Mapping[str, Any] | None:
        """Return an event; None where Stripe has none such any more. Raises Absent."""
        return await self._ask("v1.events.retrieve", id) or await self._ask("v2.core.events.retrieve", id)

    async def _every(self, name: str, **params: Any) -> list[Mapping[str, Any]]:
        try:
            return [*await self._stripe.every(name, **params)]
        except StripeFailure as failure:
            raise Absent(str(failure)) from failure

    async def _ask(self, name: str, id: str, **params: Any) -> Mapping[str, Any] | None:
        try:
            return await self._stripe.call(name, id, **params)
        except StripeFailure as failure:
            if failure.status == NOT_THERE:
                return None
            if failure.outcome in PASSING:
                raise Absent(str(failure)) from failure
            raise
