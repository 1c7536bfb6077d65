"""Meter events at Stripe and their sums, by our names of customers and meters."""

import hashlib
import re
import time
from collections.abc import Callable, Mapping

from edgeproxy.collector.billing.meter_export.exporter import MeterEventsUnavailableError, MeterEventsUnlistedError
from edgeproxy.collector.billing.meter_export.meter_keys import SEPARATOR
from edgeproxy.collector.billing.meter_export.outbox import Answer
from edgeproxy.collector.billing.meter_export.outbox_rows import OutboxRow
from edgeproxy.collector.billing.rating.rater import Span
from edgeproxy.collector.billing.stripe.client import CallOutcome, Stripe, StripeCallError

SUMMARIES = "v1.billing.meters.event_summaries.list"
PREFIX = "edgeproxy_"
MISSING = "resource_missing"
NAMES_SECONDS = 600.0
"""For how many seconds the list of Stripe's meters is cached."""


EVENT_NAME_MAX = 100
"""Characters of an event name at Stripe."""
DIGITS = 8
UNSAFE = re.compile(r"[^A-Za-z0-9_-]")


def event_name(key: str) -> str:
    """Return Stripe's event name of a meter key.

    The value of a dimension may have any characters and any length, so its name ends with digits of its hash.
    """
    meter, separator, value = key.partition(SEPARATOR)
    name = f"{PREFIX}{meter}"
    if not separator:
        return name
    digits = hashlib.sha256(value.encode()).hexdigest()[:DIGITS]
    # 2 for both underscores.
    left = EVENT_NAME_MAX - len(name) - len(digits) - 2
    return f"{name}_{UNSAFE.sub('_', value)[:left]}_{digits}"


def find_meter(name: str) -> str | None:
    """Return Stripe's event name without our prefix, or None if it is not ours."""
    return name.removeprefix(PREFIX) if name.startswith(PREFIX) else None


class StripeMeterEvents:
    """Sends events and reads their sums. `customers` are Stripe's ids by our names."""

    def __init__(self, stripe: Stripe, clock: Callable[[], float] = time.time) -> None:
        self._stripe = stripe
        self._clock = clock
        self.customers: Mapping[str, str] = {}
        self.meters: Mapping[str, str] = {}
        """Stripe's ids of meters, by event names without the prefix."""
        self._skew = 0.0
        self._learned_at = -NAMES_SECONDS

    async def learn_names(self, customers: Mapping[str, str]) -> None:
        """Set Stripe's ids of customers, and refresh the ids of meters at intervals. Raises StripeCallError."""
        self.customers = customers
        now = self._clock()
        # `billing sync` may have just created the first meters.
        if now - self._learned_at >= NAMES_SECONDS or not self.meters:
            meters = await self._stripe.list_all("v1.billing.meters.list", status="active")
            self.meters = {
                name: meter["id"] for meter in meters if (name := find_meter(meter["event_name"])) is not None
            }
            self._learned_at = now

    @property
    def skew(self) -> float:
        """Stripe's clock was ahead of ours by this many seconds at its last answer."""
        return self._skew

    async def send(self, row: OutboxRow) -> Answer:
        """Send an event. Raises nothing, whatever the result."""
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
        except StripeCallError as error:
            # No status: the event may have been counted.
            if error.outcome is CallOutcome.LOST:
                return Answer(None, error.message)
            return Answer(error.status, error.message, error.code, error.reason)
        # A replayed answer would have the time of the first call.
        if now is not None:
            self._skew = now - self._clock()
        return Answer(200)

    async def fetch_sum(self, customer: str, meter: str, span: Span) -> int:
        """Return the sum of the events in a span of whole minutes.

        Raises MeterEventsUnavailableError and MeterEventsUnlistedError.
        """
        try:
            meter_id = self.meters[event_name(meter).removeprefix(PREFIX)]
            customer_id = self.customers[customer]
        except KeyError as error:
            raise MeterEventsUnlistedError(
                f"{error.args[0]} is not known at Stripe: run edgeproxy billing sync"
            ) from None
        try:
            summaries = await self._stripe.list_all(
                SUMMARIES, meter_id, customer=customer_id, start_time=span.start, end_time=span.end
            )
        except StripeCallError as error:
            raise (MeterEventsUnlistedError if error.code == MISSING else MeterEventsUnavailableError)(
                str(error)
            ) from error
        return sum(round(summary["aggregated_value"]) for summary in summaries)
