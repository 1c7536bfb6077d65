"""What goes to Stripe and comes from there: webhooks, whether anybody is charged, and reconciliation."""

import time
from collections.abc import Sequence
from typing import Any

from aiohttp import web

from edgeproxy.base.timestamps import format_timestamp
from edgeproxy.collector.accounts import audit
from edgeproxy.collector.accounts.audit import AuditEntry
from edgeproxy.collector.accounts.ids import now_ms
from edgeproxy.collector.api.cached_reports import CachedReport, ReportCache, ReportNotReadyError
from edgeproxy.collector.api.delivery_models import (
    ReconciliationQuery,
    ReportQuery,
    UpdateRolloutRequest,
    WebhooksQuery,
)
from edgeproxy.collector.api.endpoint import Call, Nothing, Query
from edgeproxy.collector.api.request_reader import body_of
from edgeproxy.collector.api.responses import ProblemError, answer
from edgeproxy.collector.billing import discrepancies
from edgeproxy.collector.billing.invoices import shadow_log
from edgeproxy.collector.billing.reports import rollout_figures
from edgeproxy.collector.billing.rollout import charging
from edgeproxy.collector.billing.rollout import gates as rollout
from edgeproxy.collector.billing.stripe import webhook_event
from edgeproxy.collector.billing.stripe.client import read_webhook_secrets
from edgeproxy.collector.billing.stripe.payload_encryption import PayloadCipher
from edgeproxy.collector.billing.webhooks import receiver
from edgeproxy.collector.billing.webhooks.batch_writer import WebhookBatchWriter
from edgeproxy.collector.billing.webhooks.processor import Processor, StripeUnavailableError
from edgeproxy.collector.billing.webhooks.receiver import ReceivedEvent
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.metrics import Metrics
from edgeproxy.config.collector.billing import Billing
from edgeproxy.config.collector.settings import CollectorSettings

GATES_SECONDS = 60.0
"""Seconds for which the figures of gates are shown as they are; a step is held to those of its moment."""
WAIVERS_MAX = 20
"""Times without charging that are told of."""
NOT_SOLD = "nothing is billed here: the collector's file has no billing"


class DeliveryHandlers:
    """Takes what Stripe tells, and tells what people ask."""

    def __init__(self, database: Database, metrics: Metrics) -> None:
        self._database = database
        self._metrics = metrics
        self._billing: Billing | None = None
        self._secrets: tuple[str, ...] = ()
        """Of webhooks: whoever signs by one of these is Stripe."""
        self._payloads = PayloadCipher(())
        self._arrivals = WebhookBatchWriter(self._keep)
        self._gates = ReportCache("gates of the roll-out", self._work_out, GATES_SECONDS)
        self.processor: Processor | None = None
        """Applies events; None where there is no way to Stripe."""

    def use(self, settings: CollectorSettings) -> None:
        """Bill as these say; raises Unusable."""
        self._billing = settings.billing
        self._secrets = () if settings.billing is None else read_webhook_secrets(settings.billing.stripe)
        self._payloads = PayloadCipher(self._secrets)

    async def end(self) -> None:
        """Work out nothing more."""
        await self._gates.end()

    def _must_bill(self) -> Billing:
        if self._billing is None:
            raise ProblemError(404, NOT_SOLD)
        return self._billing

    async def take(self, call: Call[Query, Nothing]) -> web.Response:
        """Take an event: it is kept before it is acknowledged."""
        self._must_bill()
        if not self._secrets:
            raise ProblemError(404, "no webhook secret is configured, so no event can be verified")
        sent = await body_of(call.request, webhook_event.BYTES_MAX)
        if len(sent) > webhook_event.BYTES_MAX:
            raise ProblemError(
                413, f"an event has at most {webhook_event.BYTES_MAX} bytes", headers={"Connection": "close"}
            )
        try:
            webhook_event.verify_signature(
                sent, call.request.headers.get("Stripe-Signature"), self._secrets, time.time()
            )
            event = webhook_event.parse_event(sent)
        except (webhook_event.ForgedEventError, webhook_event.InvalidStripeEventError) as error:
            self._metrics.webhooks_refused.inc()
            raise ProblemError(400, str(error)) from None
        await self._arrivals.write_event(ReceivedEvent(event, sent))
        return answer(200, {"received": event.id})

    async def _keep(self, some: Sequence[ReceivedEvent]) -> None:
        now = now_ms()
        rows = receiver.build_rows(some, self._payloads, live=self._must_bill().stripe.live, now=now)
        async with self._database.writing() as connection:
            await receiver.insert_events(connection, rows, now)

    async def webhooks(self, call: Call[WebhooksQuery, Nothing]) -> web.Response:
        """List events of Stripe's, the latest first."""
        query = call.query
        async with self._database.reading(whole=True) as connection:
            events = await receiver.list_events(connection, query.state, query.before, query.limit)
            states = await receiver.count_by_state(connection)
        return answer(200, {"events": events, "states": states})

    async def replay(self, call: Call[Query, Nothing]) -> web.Response:
        """Have an event applied once more."""
        self._must_bill()
        event = call.path("event")
        if self.processor is None:
            raise ProblemError(409, "with mode: off nothing is asked of Stripe")
        try:
            is_there = webhook_event.ID.fullmatch(event) is not None and await self.processor.replay(event)
        except StripeUnavailableError as error:
            raise ProblemError(503, f"the event is not kept here, and Stripe does not answer: {error}") from None
        if not is_there:
            raise ProblemError(404, "neither this database nor Stripe has such an event of this mode")
        async with self._database.writing() as connection:
            await audit.append_entry(connection, call.caller, AuditEntry("billing.replay", f"event {event}"))
        return answer(202, {"event": event, "state": "waiting"})

    async def reconciliation(self, call: Call[ReconciliationQuery, Nothing]) -> web.Response:
        """Tell what was held against what, both numbers of each row that differs, and what to do about it."""
        self._must_bill()
        async with self._database.reading(whole=True) as connection:
            reconciliations = await discrepancies.list_reconciliations(connection, call.query.kind, call.query.limit)
        return answer(200, {"reconciliations": reconciliations})

    async def report(self, call: Call[ReportQuery, Nothing]) -> web.Response:
        """Tell what one rating of all usage comes to beside what was charged."""
        self._must_bill()
        async with self._database.reading(whole=True) as connection:
            report = await shadow_log.fetch_report(connection, call.query.period, call.query.limit)
        return answer(200, report)

    async def show_rollout(self, call: Call[Query, Nothing]) -> web.Response:
        """Tell who is charged now, and what the next step up waits for."""
        billing = self._must_bill()
        async with self._database.reading(whole=True) as connection:
            now = await charging.fetch_charging(connection, billing)
            waivers = await charging.list_waivers(connection, WAIVERS_MAX)
        gates: CachedReport[list[rollout.Gate]] | None = None
        try:
            gates = await self._gates.get((now.percent, now.since))
        except ReportNotReadyError:
            pass
        return answer(
            200,
            {
                **charging_to_response(now),
                "gates": [] if gates is None else [gate.to_response() for gate in gates.value],
                "gates_as_of": None if gates is None else format_timestamp(int(gates.at * 1000)),
                "stage": rollout.get_stage(now.percent),
                "since": format_timestamp(now.since * 1000) if now.since else None,
                "is_stopped_by_file": not charging.is_enabled(billing),
                "waivers": waivers,
            },
        )

    async def change_rollout(self, call: Call[Query, UpdateRolloutRequest]) -> web.Response:
        """Charge more customers, or fewer, or nobody."""
        billing, body = self._must_bill(), call.body
        version, why = 0, body.why
        gates: list[rollout.Gate] = []
        if body.percent is not None:  # Before the transaction: it can take long, and whoever counts would wait.
            now, gates = await self._gates_of(body.percent)
            version = now.version
            closed = [gate for gate in gates if not gate.is_open]
            if closed and body.force is None:
                why = "; ".join(f"{gate.name}: {gate.figure}, required {gate.condition}" for gate in closed)
                raise ProblemError(409, f"gates are closed: {why}. Wait, or send force with a reason")
            if body.force is not None:
                why = f"{body.why}; forced past {len(closed)} gates: {body.force}"
        async with self._database.writing() as connection:
            if body.percent is not None:
                await charging.set_percent(connection, call.caller, body.percent, why, frozenset({version}))
            if body.charging is False:
                await charging.stop_charging(connection, call.caller, body.message or charging.NO_CHARGE, body.why)
            elif body.charging is True:
                if not charging.is_enabled(billing):
                    raise ProblemError(409, "the collector's file stops charging: change it there, and reload")
                await charging.resume_charging(connection, call.caller, body.why)
            then = await charging.fetch_charging(connection, billing)
        return answer(200, {**charging_to_response(then), "gates": [gate.to_response() for gate in gates]})

    async def _work_out(self, _: tuple[int, int]) -> list[rollout.Gate]:
        return (await self._gates_of(rollout.PERCENT_MAX))[1]

    async def _gates_of(self, percent: int) -> tuple[charging.Charging, list[rollout.Gate]]:
        """Return who is charged now, and what a step to so many percent waits for."""
        billing = self._must_bill()
        async with self._database.reading(whole=True) as connection:
            now = await charging.fetch_charging(connection, billing)
            figures = await rollout_figures.fetch_figures(connection, now, time.time(), billing)
        return now, rollout.evaluate_gates(now.percent, percent, figures)


def charging_to_response(now: charging.Charging) -> dict[str, Any]:
    """Tell of the roll-out."""
    return {
        "mode": now.mode,
        "percent": now.percent,
        "allow": sorted(now.allow),
        "charging": now.is_on,
        "message": now.message,
        "stopped_by": now.stopped_by,
    }
