"""Events from Stripe."""

import asyncio
import time
from collections.abc import Sequence
from typing import Annotated, Literal, cast

from pydantic import BeforeValidator
from typing_extensions import TypedDict

from edgeproxy.base.tasks import Tasks
from edgeproxy.collector.accounts import audit
from edgeproxy.collector.accounts.audit import AuditEntry
from edgeproxy.collector.accounts.ids import now_ms
from edgeproxy.collector.api.customer_billing import get_billing
from edgeproxy.collector.api.endpoint import ANYONE, BILLING, JSON, Call, Header, Nothing, Query, get, post
from edgeproxy.collector.api.field_types import in_query
from edgeproxy.collector.api.group import Group, Handlers, PathParameter, Resources
from edgeproxy.collector.api.request_limits import RequestRate
from edgeproxy.collector.api.request_reader import read_body
from edgeproxy.collector.api.responses import ProblemError
from edgeproxy.collector.billing.stripe import webhook_event
from edgeproxy.collector.billing.webhooks import receiver
from edgeproxy.collector.billing.webhooks.processor import StripeUnavailableError
from edgeproxy.collector.billing.webhooks.receiver import LISTED_MAX, EventState, ReceivedEvent
from edgeproxy.collector.database.database import CONNECTION_ERRORS
from edgeproxy.collector.database.encryption import ColumnCipher
from edgeproxy.collector.database.group_commit import GroupCommit
from edgeproxy.collector.problems import billing_codes, operation_codes, request_codes
from edgeproxy.config.collector.settings import CollectorSettings
from edgeproxy.config.units import Whole

MILLISECONDS_MAX = 10**15


class WebhooksQuery(Query):
    """Filters of events."""

    state: EventState | None = None
    """Only events in this state."""
    before: Annotated[int | None, BeforeValidator(Whole(0, MILLISECONDS_MAX)), in_query(0, MILLISECONDS_MAX)] = None
    """Only events received before this time, in Unix milliseconds."""
    limit: Annotated[int, BeforeValidator(Whole(1, LISTED_MAX)), in_query(1, LISTED_MAX)] = LISTED_MAX
    """The number of events, at most."""


class WebhookEvent(TypedDict):
    """An event from Stripe."""

    id: str
    """The id of the event at Stripe."""
    type: str
    """The type of the event, such as `invoice.paid`."""
    object: str
    """The id of the object that the event is about."""
    state: EventState
    """`waiting`, `applied`, `ignored`, `other_mode` or `dead`."""
    source: str
    """The channel that delivered the event."""
    attempts: int
    """The number of attempts to apply the event."""
    error: str | None
    """The error of the last attempt; null if there was none."""
    livemode: bool
    """True if the event comes from Stripe's live mode."""
    created: str
    """The time when Stripe created the event."""
    received: str
    """The time when the collector received the event."""
    applied: str | None
    """The time when the event was applied; null until then."""


class WebhookEventList(TypedDict):
    """Events from Stripe, and the number of events in each state."""

    events: list[WebhookEvent]
    """The events, latest first."""
    states: dict[str, int]
    """The number of events in each state."""


class WebhookReceipt(TypedDict):
    """An event that was stored."""

    received: str
    """The id of the event that was stored."""


class WebhookReplayResult(TypedDict):
    """An event that will be applied again."""

    event: str
    """The id of the event."""
    state: Literal["waiting"]
    """The state of the event: `waiting` to be applied again."""


SIGNATURE = {
    "Stripe-Signature": Header(
        {"type": "string", "maxLength": 1000},
        "The time, and the signatures that prove that the event comes from Stripe.",
        required=True,
    )
}
TRANSACTION_EVENTS_MAX = 100
"""Most events that one transaction stores."""


class WebhookHandlers(Handlers):
    """Handlers of Stripe's events."""

    def __init__(self, resources: Resources) -> None:
        super().__init__(resources)
        self._commits: GroupCommit[ReceivedEvent, None] = GroupCommit(
            self._store_events,
            cost_max=TRANSACTION_EVENTS_MAX,
            is_item_fault=lambda error: not isinstance(error, CONNECTION_ERRORS),
        )
        self._tasks = Tasks()
        self._committing: asyncio.Task[None] | None = None

    async def close(self) -> None:
        """Store waiting events and stop."""
        self._commits.end()
        if self._committing is not None:
            await self._committing

    def apply_settings(self, settings: CollectorSettings) -> None:
        """Verify events with the secrets of the last reload."""
        self._secrets = self._resources.webhook_secrets
        self._payloads = ColumnCipher(self._secrets)

    @post(
        "/billing/webhooks/stripe",
        roles=ANYONE,
        request_media={JSON: dict[str, object]},
        headers=SIGNATURE,
        errors={404: "Billing is not configured, or no webhook secret is configured.", 413: "The event is too large."},
        listener_groups=frozenset({"webhooks"}),
    )
    async def receive_event(self, call: Call[Query, Nothing]) -> WebhookReceipt:
        """Receive an event from Stripe with its signature. The answer comes once the event is on disk."""
        get_billing(self._settings)
        if not self._secrets:
            raise ProblemError(
                request_codes.NOT_CONFIGURED, "no webhook secret is configured, so no event can be verified"
            )
        body = await read_body(call.request, webhook_event.BYTES_MAX)
        if len(body) > webhook_event.BYTES_MAX:
            why = f"an event has at most {webhook_event.BYTES_MAX} bytes"
            raise ProblemError(request_codes.BODY_TOO_LARGE, why, headers={"Connection": "close"})
        try:
            signature = call.request.headers.get("Stripe-Signature")
            webhook_event.verify_signature(body, signature, self._secrets, time.time())
            event = webhook_event.parse_event(body)
        except (webhook_event.ForgedEventError, webhook_event.InvalidStripeEventError) as error:
            self._metrics.webhooks_refused.inc()
            raise ProblemError(operation_codes.WEBHOOK_SIGNATURE_INVALID, str(error)) from None
        if self._committing is None:
            self._committing = self._tasks.start("webhook events", self._commits.run())
        await self._commits.submit(ReceivedEvent(event, body))
        return {"received": event.id}

    async def _store_events(self, events: Sequence[ReceivedEvent]) -> list[None]:
        """Store events in one transaction. Storing an event twice is harmless."""
        now = now_ms()
        rows = receiver.build_rows(events, self._payloads, live=get_billing(self._settings).stripe.live, now=now)
        async with self._database.writing() as connection:
            await receiver.insert_events(connection, rows, now)
        return [None] * len(events)

    @get("/billing/webhooks", roles=BILLING, rate=RequestRate(100, "customer"))
    async def list_events(self, call: Call[WebhooksQuery, Nothing]) -> WebhookEventList:
        """List events from Stripe, latest first, without their payload."""
        query = call.query
        async with self._database.reading(whole=True) as connection:
            events = await receiver.list_events(connection, query.state, query.before, query.limit)
            states = await receiver.count_by_state(connection)
        return {"events": cast(list[WebhookEvent], events), "states": states}

    @post(
        "/billing/webhooks/{event}/replay",
        roles=BILLING,
        status=202,
        errors={409: "Billing is off."},
        rate=RequestRate(100, "customer"),
    )
    async def replay_event(self, call: Call[Query, Nothing]) -> WebhookReplayResult:
        """Apply an event again, from this database or else from Stripe."""
        get_billing(self._settings)
        event, processor = call.path("event"), self._resources.processor
        if processor is None:
            raise ProblemError(billing_codes.BILLING_OFF, "with mode: off nothing is asked of Stripe")
        try:
            exists = webhook_event.ID.fullmatch(event) is not None and await processor.replay(event)
        except StripeUnavailableError as error:
            raise ProblemError(
                billing_codes.STRIPE_UNAVAILABLE, f"the event is not kept here, and Stripe does not answer: {error}"
            ) from None
        if not exists:
            raise ProblemError(
                operation_codes.STRIPE_EVENT_NOT_FOUND,
                "neither this database nor Stripe has such an event of this mode",
            )
        async with self._database.writing() as connection:
            await audit.append_entry(connection, call.caller, AuditEntry("billing.replay", f"event {event}"))
        return {"event": event, "state": "waiting"}


GROUP = Group(
    "webhooks",
    "Events from Stripe.",
    WebhookHandlers,
    parameters={"event": PathParameter("The id of the event at Stripe, such as evt_1.")},
)
