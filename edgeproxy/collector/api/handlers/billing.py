"""Plans, subscriptions and invoices."""

import time
from typing import Any, NoReturn

import sqlalchemy as sa
from aiohttp import web
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.base.timestamps import format_timestamp
from edgeproxy.collector.accounts import audit, customers
from edgeproxy.collector.accounts import change as changing
from edgeproxy.collector.accounts.audit import AuditEntry
from edgeproxy.collector.accounts.ids import generate_id, now_ms
from edgeproxy.collector.api import auth
from edgeproxy.collector.api.auth import Holder
from edgeproxy.collector.api.billing_models import (
    CreateCreditNoteRequest,
    CreateSubscriptionRequest,
    InvoicesQuery,
    PlanResponse,
    PreviewSubscriptionRequest,
    ReasonRequest,
    UpcomingQuery,
    UpdateSubscriptionRequest,
    WhoseQuery,
)
from edgeproxy.collector.api.endpoint import Call, Nothing, Query
from edgeproxy.collector.api.handlers.accounts import AccountHandlers, answer_page, answer_with_etag, parse_if_match
from edgeproxy.collector.api.responses import ProblemError, answer
from edgeproxy.collector.billing.invoices import invoices
from edgeproxy.collector.billing.invoices.credit_notes import REFUSED, REQUESTED
from edgeproxy.collector.billing.invoices.invoices import Invoice
from edgeproxy.collector.billing.invoices.line_rows import fetch_lines, format_unit_price, line_to_response
from edgeproxy.collector.billing.period_close import invoice_lines
from edgeproxy.collector.billing.period_close import quantities as usage
from edgeproxy.collector.billing.rating import periods
from edgeproxy.collector.billing.rating.rater import RatedLine, sum_amounts
from edgeproxy.collector.billing.rollout import charging
from edgeproxy.collector.billing.subscriptions import changes, plans_on_sale, subscription_rows, subscriptions
from edgeproxy.collector.billing.subscriptions.subscription_rows import LoadedSubscription
from edgeproxy.collector.database.billing_tables import credit_notes
from edgeproxy.config.collector.billing import Billing
from edgeproxy.config.collector.catalog import MeterPrice, Plan, find_newest_versions, get_plan_name, get_plan_tier

SOLD_LATER = {"Retry-After": "60"}


class BillingHandlers(AccountHandlers):
    """Makes changes as those of accounts are made: one transaction, once for an Idempotency-Key."""

    # ---- for anybody

    async def plans(self, _: Call[Query, Nothing]) -> web.Response:
        """Tell what is sold: the newest version of each plan."""
        billing, plans = self._billing(), self._settings.plans
        sold = [plan_to_response(version, plans[version]) for version in find_newest_versions(plans).values()]
        return answer(200, {"currency": billing.currency, "plans": sold})

    async def status(self, _: Call[Query, Nothing]) -> web.Response:
        """Tell whether anything can be bought, and anybody is charged."""
        billing = self._billing()
        async with self._database.reading() as connection:
            now = await charging.fetch_charging(connection, billing)
        is_charging = now.is_on and now.mode != "off"
        status = {"mode": billing.mode, "purchase": billing.purchase and is_charging, "charging": is_charging}
        return answer(200, status | {"message": now.message})

    # ---- subscriptions

    async def subscription(self, call: Call[WhoseQuery, Nothing]) -> web.Response:
        """Tell which plan a customer has."""
        async with self._database.reading(whole=True) as connection:
            loaded = await subscription_rows.get_by_customer(connection, self._get_customer(call))
        return answer_with_etag(200, subscriptions.to_response(loaded.row, loaded.customer.name), loaded.row.version)

    async def subscribe(self, call: Call[Any, CreateSubscriptionRequest]) -> web.Response:
        """Begin a subscription."""
        customer, body = self._get_customer(call), call.body
        await self._check_selling(call)

        async def make(connection: AsyncConnection) -> tuple[int, Any, int | None]:
            self._check_plan_sold(call, customer, None)
            subscription, version = await subscriptions.create_subscription(
                connection,
                call.caller,
                customer,
                body.plan,
                is_yearly=body.interval == "year",
                settings=self._settings,
                now=time.time(),
            )
            return 201, subscription, version

        return await self._change(call, make, creates=True)

    async def change(self, call: Call[Any, UpdateSubscriptionRequest]) -> web.Response:
        """Change to another plan."""

        def plan_of(loaded: LoadedSubscription) -> str:
            self._check_plan_sold(call, loaded.customer.name, loaded.current.last.version)
            plan: str = call.body.plan
            return plan

        return await self._to(call, plan_of, call.body.when)

    async def upgrade(self, call: Call[Any, Nothing]) -> web.Response:
        """Change to the plan with a tier, at once."""
        plans = self._settings.plans
        return await self._to(
            call, lambda loaded: plans_on_sale.get_version_of_tier(call.query.tier, plans, loaded.customer.name), "now"
        )

    async def _to(self, call: Call[Any, Any], plan_of: Any, when: changes.When | None) -> web.Response:
        customer = self._get_customer(call)
        await self._check_selling(call)

        async def make(connection: AsyncConnection) -> tuple[int, Any, int | None]:
            plan = plan_of(await subscription_rows.get_by_customer(connection, customer))
            subscription, version = await subscriptions.change_subscription(
                connection,
                call.caller,
                customer,
                plan,
                when,
                settings=self._settings,
                now=time.time(),
                match=parse_if_match(call.request),
            )
            return 200, subscription, version

        return await self._change(call, make)

    async def cancel(self, call: Call[Any, Nothing]) -> web.Response:
        """End a subscription."""
        customer = self._get_customer(call)

        async def make(connection: AsyncConnection) -> tuple[int, Any, int | None]:
            subscription, version = await subscriptions.cancel_subscription(
                connection,
                call.caller,
                customer,
                call.query.when,
                settings=self._settings,
                now=time.time(),
                match=parse_if_match(call.request),
            )
            return 200, subscription, version

        return await self._change(call, make)

    async def preview(self, call: Call[WhoseQuery, PreviewSubscriptionRequest]) -> web.Response:
        """Tell what a change, or the beginning of a subscription, would come to."""
        billing, body, now = self._billing(), call.body, time.time()
        async with self._database.reading(whole=True) as connection:
            customer = await customers.get_row(connection, self._get_customer(call))
            row = await subscription_rows.find_live(connection, customer.id)
            if row is None:
                await subscriptions.check_may_subscribe(connection, customer, now)
                self._check_plan_sold(call, customer.name, None)
                held = subscriptions.prepare_subscription(
                    body.plan, customer.name, is_yearly=body.interval == "year", settings=self._settings, now=now
                )
                version, when, at = held.last.version, "now", held.last.span.start
                due = changes.compute_fees(held.segments, ())
            else:
                loaded = await subscription_rows.load_subscription(connection, row)
                self._check_plan_sold(call, customer.name, loaded.current.last.version)
                planned = await subscriptions.prepare_change(
                    connection, loaded, body.plan, body.when, settings=self._settings, now=now
                )
                version = plans_on_sale.resolve_version(body.plan, self._settings.plans, customer.name)
                when, at, due = planned.when, planned.at, planned.lines
        preview = {"plan": version, "when": when, "at": format_timestamp(at * 1000), "due_now": sum_amounts(due)}
        return answer(200, preview | {"currency": billing.currency, "lines": [line_to_response(line) for line in due]})

    # ---- usage

    async def usage(self, call: Call[WhoseQuery, Nothing]) -> web.Response:
        """Tell what was used in this period of all that the plan bills or bounds."""
        return answer(200, await self._fetch_usage(call))

    async def usage_of(self, call: Call[WhoseQuery, Nothing]) -> web.Response:
        """The same of one meter."""
        usage_report = await self._fetch_usage(call)
        meter = call.path("meter")
        usage_report["meters"] = [one for one in usage_report["meters"] if one["meter"] == meter]
        if not usage_report["meters"]:
            raise ProblemError(404, "the plan neither bills nor bounds this meter")
        return answer(200, usage_report)

    async def quotas(self, call: Call[WhoseQuery, Nothing]) -> web.Response:
        """The same of what has a cap and no price."""
        usage_report = await self._fetch_usage(call)
        usage_report["meters"] = [one for one in usage_report["meters"] if one["cap"] is not None]
        return answer(200, usage_report)

    async def _fetch_usage(self, call: Call[WhoseQuery, Nothing]) -> dict[str, Any]:
        async with self._database.reading(whole=True) as connection:
            loaded = await subscription_rows.get_by_customer(connection, self._get_customer(call))
            last, terms = loaded.current.last, usage.QuantityTerms(self._settings.meters, loaded.current.anchor)
            name = loaded.customer.name
            try:
                used = await usage.fetch_quantities(connection, name, loaded.current.segments, last, terms)
            except (usage.QuantityTooLargeError, usage.UsageNotStoredError) as error:
                raise ProblemError(422, str(error)) from None
        return {
            "customer": loaded.customer.name,
            "plan": last.version,
            "period_start": format_timestamp(last.span.start * 1000),
            "period_end": format_timestamp(last.span.end * 1000),
            "meters": usage.plan_usage_to_response(last.plan, used),
        }

    # ---- invoices

    async def invoices(self, call: Call[InvoicesQuery, Nothing]) -> web.Response:
        """List invoices: of a customer, or, for those who read all, of everybody."""
        self._billing()
        query = call.query
        name = auth.customer_of(call.holder, query.customer)
        async with self._database.reading() as connection:
            customer = None if name is None else (await customers.get_row(connection, name)).id
            only = {"customer": customer, "period": query.period, "state": query.state}
            rows = await invoices.list_invoices(connection, query.cursor, query.limit + 1, **only)
        return answer_page("invoices", [hide_staff_reasons(call.holder, one) for one in rows], query.limit)

    async def upcoming(self, call: Call[UpcomingQuery, Nothing]) -> web.Response:
        """Tell the next invoice, if nothing more were used, and where that is asked for as it will be."""
        billing = self._billing()
        async with self._database.reading(whole=True) as connection:
            loaded = await subscription_rows.get_by_customer(connection, self._get_customer(call))
            try:
                now = time.time() if call.query.projected else None
                due = await invoice_lines.compute_upcoming(connection, loaded, self._settings.meters, now)
            except (usage.QuantityTooLargeError, usage.UsageNotStoredError) as error:
                raise ProblemError(422, str(error)) from None
        return answer(200, upcoming_to_response(loaded, due, billing))

    async def invoice(self, call: Call[Query, Nothing]) -> web.Response:
        """Tell an invoice."""
        async with self._database.reading(whole=True) as connection:
            row = await invoices.get_invoice(connection, call.path("invoice"))
            return answer(
                200,
                hide_staff_reasons(call.holder, invoices.to_response(row, await fetch_lines(connection, row.id))),
            )

    async def pdf(self, call: Call[Query, Nothing]) -> web.Response:
        """Say where the PDF of an invoice is."""
        async with self._database.reading() as connection:
            row = await invoices.get_invoice(connection, call.path("invoice"))
        if row.pdf is None:
            raise ProblemError(409, f"the invoice is {row.state}: it has a PDF once it is open")
        return web.Response(status=303, headers={"Location": row.pdf})

    async def hold(self, call: Call[Query, ReasonRequest]) -> web.Response:
        """Have a draft wait until somebody has looked at it."""

        def decide(row: Any) -> dict[str, Any]:
            if row.state != invoices.DRAFT:
                self._refuse(row, "only a draft can be held; one that is on its way to Stripe cannot")
            return {"state": invoices.HELD, "held_why": call.body.why}

        return await self._decide(call, "invoice.hold", decide)

    async def accept(self, call: Call[Query, ReasonRequest]) -> web.Response:
        """Have an invoice that is held sent as it is."""

        def decide(row: Any) -> dict[str, Any]:
            if row.state != invoices.HELD:
                self._refuse(row, "only one that is held can be accepted")
            again = {"try_at": 0, "tries": row.tries + 1}
            if not row.is_written:  # Nobody has seen what it comes to: that is still held against Stripe's.
                return again | {"state": invoices.DRAFT, "held_why": None}
            return again | {"state": invoices.CLOSING, "accepted_why": call.body.why}

        return await self._decide(call, "invoice.accept", decide)

    async def void(self, call: Call[Query, ReasonRequest]) -> web.Response:
        """Have an invoice taken back."""

        def decide(row: Any) -> dict[str, Any]:
            if row.state not in (invoices.HELD, invoices.OPEN, invoices.UNCOLLECTIBLE):
                self._refuse(row, "only one that is held or open can be taken back")
            return {"state": invoices.VOIDING, "held_why": call.body.why, "try_at": 0, "tries": row.tries + 1}

        return await self._decide(call, "invoice.void", decide)

    async def _decide(self, call: Call[Query, ReasonRequest], action: str, decide: Any) -> web.Response:
        """Write what a person decides of an invoice;

        what follows at Stripe is done by the job (collector/billing/period_close/invoice_delivery.py).
        """
        async with self._database.writing() as connection:
            row = await invoices.get_invoice(connection, call.path("invoice"), lock=True)
            written = await fetch_lines(connection, row.id)
            values = decide(InvoiceDecision(row, bool(written)))
            await invoices.transition(connection, row.id, row.state, values.pop("state"), **values)
            entry = AuditEntry(action, row.id, {"state": row.state, "held_why": row.held_why}, {"why": call.body.why})
            await audit.append_entry(connection, call.caller, entry)
            after = await invoices.get_invoice(connection, row.id)
        return answer(200, invoices.to_response(after, written))

    async def credit(self, call: Call[Any, CreateCreditNoteRequest]) -> web.Response:
        """Have some of an invoice taken back."""

        async def make(connection: AsyncConnection) -> tuple[int, Any, int | None]:
            row = await invoices.get_invoice(connection, call.path("invoice"), lock=True)
            if row.state not in (invoices.OPEN, invoices.PAID) or row.stripe_id is None:
                self._refuse(row, "some can be taken back of one that is open or paid")
            of = (credit_notes.c.invoice == row.id) & (credit_notes.c.state != REFUSED)
            before = (await connection.execute(sa.select(sa.func.sum(credit_notes.c.amount)).where(of))).scalar_one()
            left = row.total - int(before or 0)
            if call.body.amount > left:
                raise changing.ChangeRejectedError(
                    422, "some fields cannot be used", [("amount", f"is above the {left} left")]
                )
            note = {"id": generate_id(), "invoice": row.id, "amount": call.body.amount, "why": call.body.why}
            note |= {"state": REQUESTED}
            await connection.execute(sa.insert(credit_notes), [note | {"tries": 0, "created_at": now_ms()}])
            await audit.append_entry(connection, call.caller, AuditEntry("invoice.credit", row.id, None, note))
            return 201, note, None

        return await self._change(call, make, creates=True)

    # ---- who and whether

    def _billing(self) -> Billing:
        """What is configured; raises ProblemError."""
        if self._settings.billing is None:
            raise ProblemError(404, "nothing is sold here: there is no billing in the collector's file")
        return self._settings.billing

    async def _check_selling(self, call: Call[Any, Any]) -> None:
        """Raise ProblemError while nothing can be bought: by customers with `mode: off`, as they would not be
        charged, and by anyone while charging is stopped, as buyers are charged."""
        billing = self._billing()
        if billing.mode == "off" and call.holder.customer is not None:
            raise ProblemError(409, "nothing is sold here while nobody is charged: ask those who run this for a plan")
        async with self._database.reading() as connection:
            now = await charging.fetch_charging(connection, billing)
        if not now.is_on and now.mode != "off":
            raise ProblemError(503, now.message or charging.NO_CHARGE, headers=SOLD_LATER)
        if not billing.purchase:
            raise ProblemError(503, "nothing can be bought at the moment", headers=SOLD_LATER)

    def _check_plan_sold(self, call: Call[Any, Any], customer: str, held: str | None) -> None:
        """Raise ProblemError where a customer asks for a version that is not sold any more; staff may give any."""
        if call.holder.customer is not None:
            plans_on_sale.check_sold(call.body.plan, self._settings.plans, customer, held)

    def _get_customer(self, call: Call[Any, Any]) -> str:
        """Whose billing is asked for, by name or id; raises ProblemError and DeniedError."""
        self._billing()
        name = auth.customer_of(call.holder, call.query.customer)
        if name is None:
            raise ProblemError(422, "name the customer: ?customer=NAME")
        return name

    def _refuse(self, row: Any, why: str) -> NoReturn:
        raise changing.ChangeRejectedError(409, f"the invoice is {row.state}: {why}")


def hide_staff_reasons(holder: Holder, invoice: Invoice) -> Invoice:
    """An invoice as who asks may see it: why it was held, accepted or taken back is what staff wrote for staff."""
    return invoice if holder.customer is None else {**invoice, "held_why": None, "accepted_why": None}


class InvoiceDecision:
    """An invoice that somebody decides about, and whether its lines are written."""

    def __init__(self, row: Any, is_written: bool) -> None:
        self.state: str = row.state
        self.tries: int = row.tries
        self.is_written = is_written


def plan_to_response(version: str, plan: Plan) -> PlanResponse:
    """Tell a plan as it is sold."""
    return {
        "plan": get_plan_name(version),
        "name": plan.name or get_plan_name(version),
        "version": version,
        "tier": get_plan_tier(version, plan),
        "fee": plan.fee,
        "year_fee": plan.year_fee,
        "meters": {meter: price_to_response(price) for meter, price in plan.meters.items()},
        "entitlements": plan.entitlements,
    }


def price_to_response(price: MeterPrice) -> dict[str, Any]:
    """Tell what a plan says of a meter."""
    response: dict[str, Any] = {"included": price.included, "cap": price.cap}
    if price.price is not None:
        response["price"] = format_unit_price(price.price)
    if price.tiers:
        response["tiers"] = [{"up_to": tier.up_to, "price": format_unit_price(tier.price)} for tier in price.tiers]
    if price.by is not None:
        prices = {value: format_unit_price(one) for value, one in price.by.prices.items()}
        response["by"] = {"dimension": price.by.dimension, "prices": prices}
    return response


def upcoming_to_response(
    loaded: LoadedSubscription, due: invoice_lines.UpcomingInvoice, billing: Billing
) -> dict[str, Any]:
    """Tell the next invoice."""
    period = loaded.current.period
    about = {
        "customer": loaded.customer.name,
        "period": periods.format_period(period),
        "period_start": format_timestamp(period.start * 1000),
        "period_end": format_timestamp(period.end * 1000),
        "currency": billing.currency,
        "closes_at": format_timestamp(int((period.end + billing.freeze) * 1000)),
    }
    response = about | amounts_to_response(due.lines)
    return response if due.projected is None else response | {"projected": amounts_to_response(due.projected)}


def amounts_to_response(due: list[RatedLine]) -> dict[str, Any]:
    """Tell what lines come to, before tax."""
    return {"subtotal": sum_amounts(due), "total": sum_amounts(due), "lines": [line_to_response(line) for line in due]}
