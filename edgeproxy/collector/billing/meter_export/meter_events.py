"""Usage as Stripe counts it: meter events, and their sums, by our names of customers and meters."""

import time
from collections.abc import Callable, Mapping

from edgeproxy.collector.billing.meter_export.exporter import Away, Unlisted
from edgeproxy.collector.billing.meter_export.outbox import Answer
from edgeproxy.collector.billing.meter_export.outbox_rows import Row
from edgeproxy.collector.billing.rating.rater import Span
from edgeproxy.collector.billing.stripe.client import Outcome, Stripe, StripeFailure

SUMMARIES = "v1.billing.meters.event_summaries.list"
PREFIX = "edgeproxy_"
MISSING = "resource_missing"
NAMES_SECONDS = 600.0
"""Seconds for which it is taken for known which meters Stripe has."""


def event_name(meter: str) -> str:
    """What Stripe calls events of a meter of ours."""
    return f"{PREFIX}{meter}"


def meter_of(name: str) -> str | None:
    """The meter of ours whose events Stripe calls so; None where they are not ours."""
    return name.removeprefix(PREFIX) if name.startswith(PREFIX) else None


class StripeMeterEvents:
    """Sends events and reads their sums. `customers` and `meters` are Stripe's ids by our names."""

    def __init__(self, stripe: Stripe, clock: Callable[[], float] = time.time) -> None:
        self._stripe = stripe
        self._clock = clock
        self.customers: Mapping[str, str] = {}
        self.meters: Mapping[str, str] = {}
        self._skew = 0.0
        self._learned_at = -NAMES_SECONDS

    async def learn(self, customers: Mapping[str, str]) -> None:
        """Know these customers, and by now and then asking, which meters there are; raises StripeFailure."""
        self.customers = customers
        now = self._clock()
        if now - self._learned_at >= NAMES_SECONDS or not self.meters:
            found = await self._stripe.every("v1.billing.meters.list", status="active")
            self.meters = {name: one["id"] for one in found if (name := meter_of(one["event_name"])) is not None}
            self._learned_at = now

    @property
    def skew(self) -> float:
        """Seconds by which Stripe's clock was ahead of ours, when it answered last."""
        return self._skew

    async def send(self, row: Row) -> Answer:
        """Send an event; nothing is raised, whatever comes of it."""
        customer = self.customers.get(row.customer)
        if customer is None:
            return Answer(404, f"{row.customer} is no customer at Stripe")
        fields = {
            "event_name": event_name(row.meter),
            "payload[stripe_customer_id]": customer,
            "payload[value]": str(row.value),
            "identifier": row.identifier,
            "timestamp": str(row.dated),
        }
        try:
            now = await self._stripe.send_event(row.idempotency_key, fields)
        except StripeFailure as failure:
            if failure.outcome is Outcome.LOST:
                return Answer(None, failure.message)
            return Answer(failure.status, failure.message, failure.code, failure.reason)
        if now is not None:
            self._skew = now - self._clock()
        return Answer(200)

    async def counted(self, customer: str, meter: str, span: Span) -> int:
        """Return the sum of the events in a time of whole minutes; raises Away, and Unlisted."""
        try:
            of, at = self.meters[meter], self.customers[customer]
        except KeyError as missing:
            raise Unlisted(f"{missing.args[0]} is not known at Stripe: run edgeproxy billing sync") from None
        try:
            found = await self._stripe.every(SUMMARIES, of, customer=at, start_time=span.start, end_time=span.end)
        except StripeFailure as failure:
            raise (Unlisted if failure.code == MISSING else Away)(str(failure)) from failure
        return sum(round(one["aggregated_value"]) for one in found)
