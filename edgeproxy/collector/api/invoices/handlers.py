"""Invoices and credit notes."""

import time
from collections.abc import Callable
from typing import NoReturn, cast

from aiohttp import web
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.base.timestamps import format_timestamp
from edgeproxy.collector.accounts import audit, customers
from edgeproxy.collector.accounts.audit import AuditEntry
from edgeproxy.collector.accounts.change import INVALID_FIELDS, ChangeRejectedError, reject_field
from edgeproxy.collector.api import auth
from edgeproxy.collector.api.auth import Holder
from edgeproxy.collector.api.customer_billing import (
    NO_USAGE,
    AnyCustomerQuery,
    CustomerBillingHandlers,
    CustomerQuery,
    get_billing,
)
from edgeproxy.collector.api.endpoint import BILLING, CREATE, MONEY_READERS, OWN, Call, Nothing, Query, get, post
from edgeproxy.collector.api.field_types import ChangeQuery
from edgeproxy.collector.api.group import Group, PathParameter, Resources
from edgeproxy.collector.api.invoices.models import (
    ClosingQuery,
    CreateCreditNoteRequest,
    CreditNoteResponse,
    DisputesQuery,
    InvoiceAmounts,
    InvoicesQuery,
    InvoiceWithParties,
    LineExplanationResponse,
    PeriodCostsResponse,
    ReasonRequest,
    SettleInvoiceRequest,
    UpcomingInvoiceResponse,
    UpcomingQuery,
)
from edgeproxy.collector.api.request_limits import CustomerTurns, RequestRate
from edgeproxy.collector.api.responses import ProblemError, next_page
from edgeproxy.collector.billing import discrepancies
from edgeproxy.collector.billing.invoices import (
    closing_preview,
    credit_notes,
    disputes,
    invoices,
    note_requests,
    receivables,
)
from edgeproxy.collector.billing.invoices.acceptance import build_acceptance, has_total_of_stripe
from edgeproxy.collector.billing.invoices.closing_preview import ClosingPreview
from edgeproxy.collector.billing.invoices.credit_decision import NoteRefusedError
from edgeproxy.collector.billing.invoices.dispute_states import DisputeList
from edgeproxy.collector.billing.invoices.invoice_order import ENDED
from edgeproxy.collector.billing.invoices.invoice_parties import build_seller, find_parties
from edgeproxy.collector.billing.invoices.invoice_row import InvoiceRow
from edgeproxy.collector.billing.invoices.invoices import Invoice, InvoiceList
from edgeproxy.collector.billing.invoices.line_rows import (
    InvoiceLine,
    describe_line,
    fetch_lines,
    format_unit_price,
    line_to_response,
)
from edgeproxy.collector.billing.invoices.receivables import ReceivableList
from edgeproxy.collector.billing.mismatch import InvoiceDifference, to_difference
from edgeproxy.collector.billing.period_close import explanation, invoice_lines
from edgeproxy.collector.billing.period_close.explanation import LineExplanation
from edgeproxy.collector.billing.period_close.quantities import QuantityTooLargeError, UsageNotStoredError
from edgeproxy.collector.billing.rating import periods
from edgeproxy.collector.billing.rating.rater import RatedLine, Span, sum_amounts
from edgeproxy.collector.billing.subscriptions import changes, subscription_rows
from edgeproxy.collector.billing.subscriptions.subscription_rows import LoadedSubscription
from edgeproxy.collector.database.page_order import parse_sort
from edgeproxy.collector.problems import billing_codes, request_codes
from edgeproxy.collector.problems.coded_error import FieldFault
from edgeproxy.config.collector.billing import Billing
from edgeproxy.config.field_codes import NOT_DUE

ESTIMATES_AT_ONCE = 2
"""Concurrent estimates of a customer's running period: half of the connections for reading, as for its usage."""
LINE_DIGITS_MAX = 9
ACCEPT = "invoice.accept"
Decide = Callable[[InvoiceRow, bool], dict[str, object]]
"""Returns the columns that a decision about an invoice sets. The flag says whether its lines are written."""


class InvoiceHandlers(CustomerBillingHandlers):
    """Handlers of invoices."""

    def __init__(self, resources: Resources) -> None:
        super().__init__(resources)
        self._turns = CustomerTurns(ESTIMATES_AT_ONCE)

    @get(
        "/billing/invoices",
        roles=MONEY_READERS | OWN,
        errors={404: "Billing is not configured, or the customer does not exist."},
    )
    async def list_invoices(self, call: Call[InvoicesQuery, Nothing]) -> InvoiceList:
        """List invoices without their lines: newest first, unless `sort` says otherwise."""
        get_billing(self._settings)
        query = call.query
        name = auth.customer_of(call.holder, query.customer)
        is_bounded = name is not None or (query.state is not None and query.state not in ENDED)
        if parse_sort(query.sort)[0] != "created_at" and not is_bounded:
            why = "needs a customer, or a state in which invoices do not stay"
            raise ChangeRejectedError(request_codes.QUERY_INVALID, INVALID_FIELDS, [FieldFault("sort", why)])
        async with self._database.reading() as connection:
            customer = None if name is None else (await customers.get_row(connection, name)).id
            filters = {"customer": customer, "period": query.period, "state": query.state, "number": query.number}
            rows = await invoices.list_invoices(connection, query.cursor, query.limit, sort=query.sort, **filters)
        return {"invoices": [hide_staff_reasons(call.holder, invoice) for invoice in rows], **next_page(rows.next)}

    @get(
        "/billing/receivables",
        roles=MONEY_READERS | OWN,
        errors={404: "Billing is not configured, or the customer does not exist."},
    )
    async def sum_receivables(self, call: Call[AnyCustomerQuery, Nothing]) -> ReceivableList:
        """Sum up the open and overdue invoices of all customers, or of one, by currency."""
        get_billing(self._settings)
        name = auth.customer_of(call.holder, call.query.customer)
        async with self._database.reading() as connection:
            customer = None if name is None else (await customers.get_row(connection, name)).id
            return {"receivables": await receivables.sum_receivables(connection, time.time(), customer)}

    @get(
        "/billing/disputes",
        roles=MONEY_READERS,
        errors={404: "Billing is not configured, or the customer does not exist."},
    )
    async def list_disputes(self, call: Call[DisputesQuery, Nothing]) -> DisputeList:
        """List disputed payments of invoices and credits, newest first, with the deadline for an answer."""
        get_billing(self._settings)
        query = call.query
        async with self._database.reading() as connection:
            name = query.customer
            customer = None if name is None else (await customers.get_row(connection, name)).id
            rows = await disputes.list_disputes(
                connection, query.cursor, query.limit, customer=customer, state=query.state
            )
        return {"disputes": rows, **next_page(rows.next)}

    @get("/billing/invoices/closing", roles=MONEY_READERS, errors={404: "Billing is not configured."})
    async def preview_close(self, call: Call[ClosingQuery, Nothing]) -> ClosingPreview:
        """Show what closing a period would do, as `edgeproxy billing close --dry-run` does. Nothing is closed."""
        get_billing(self._settings)
        async with self._database.reading() as connection:
            return await closing_preview.preview_close(connection, call.query.period)

    @get(
        "/billing/invoices/upcoming",
        roles=MONEY_READERS | OWN,
        errors=NO_USAGE | {404: "Billing is not configured, or the customer or its subscription does not exist."},
    )
    async def preview_invoice(self, call: Call[UpcomingQuery, Nothing]) -> UpcomingInvoiceResponse:
        """Preview the next invoice as of now and, if the query asks, projected from the last seven days.

        The query `ended` previews the last invoice of a plan that would end now. Nothing is changed.
        """
        billing, customer = get_billing(self._settings), self._get_customer(call)
        async with self._turns.take(call.holder.customer), self._database.reading(whole=True) as connection:
            loaded = await subscription_rows.get_by_customer(connection, customer)
            try:
                if call.query.ended:
                    loaded = loaded._replace(current=changes.end_now(loaded.current, time.time()))
                now = time.time() if call.query.projected and not call.query.ended else None
                upcoming = await invoice_lines.compute_upcoming(connection, loaded, self._settings.meters, now)
            except (QuantityTooLargeError, UsageNotStoredError) as error:
                raise ProblemError(billing_codes.USAGE_NOT_PRICEABLE, str(error)) from None
        return upcoming_to_response(loaded, upcoming, billing)

    @get(
        "/billing/costs",
        roles=MONEY_READERS | OWN,
        errors=NO_USAGE | {404: "Billing is not configured, or the customer or its subscription does not exist."},
    )
    async def fetch_period_costs(self, call: Call[CustomerQuery, Nothing]) -> PeriodCostsResponse:
        """Compute the cost of the running period by day, and project it from the last seven days."""
        get_billing(self._settings)
        customer = self._get_customer(call)
        async with self._turns.take(call.holder.customer), self._database.reading(whole=True) as connection:
            loaded = await subscription_rows.get_by_customer(connection, customer)
            try:
                costs = await invoice_lines.compute_period_costs(connection, loaded, self._settings.meters, time.time())
            except (QuantityTooLargeError, UsageNotStoredError) as error:
                raise ProblemError(billing_codes.USAGE_NOT_PRICEABLE, str(error)) from None
        period = loaded.current.period
        return {
            "customer": loaded.customer.name,
            "currency": loaded.current.last.plan.currency,
            "period_start": format_timestamp(period.start * 1000),
            "period_end": format_timestamp(period.end * 1000),
            "days": [{"until": format_timestamp(day.until * 1000), "amount": day.amount} for day in costs.days],
            "low": costs.low,
            "high": costs.high,
        }

    @get("/billing/invoices/{invoice}", roles=MONEY_READERS | OWN)
    async def fetch_invoice(self, call: Call[Query, Nothing]) -> InvoiceWithParties:
        """Fetch an invoice with its lines."""
        async with self._database.reading(whole=True) as connection:
            row = await invoices.get_invoice(connection, call.path("invoice"))
            lines = await fetch_lines(connection, row.id)
            notes = await credit_notes.list_of_invoice(connection, row.id)
            invoice = invoices.to_response(row, lines, notes)
            invoice["disputes"] = await disputes.list_of_invoice(connection, row.id)
            parties = await find_parties(connection, row.id)
            if call.holder.customer is None and row.state == invoices.HELD:
                differences = await fetch_differences(connection, row)
                invoice["differences"] = differences
                invoice["acceptance"] = build_acceptance(row, differences, is_written=bool(lines))
        billing = self._settings.billing
        response: InvoiceWithParties = {
            **hide_staff_reasons(call.holder, invoice),
            "buyer": None if parties is None else parties["buyer"],
            "seller": build_seller(None if billing is None else billing.seller, parties),
        }
        return response

    @get("/billing/invoices/{invoice}/lines/{line}", roles=MONEY_READERS | OWN)
    async def explain_line(self, call: Call[Query, Nothing]) -> LineExplanationResponse:
        """Explain a line of an invoice: its formula, earlier lines of the same price, and hourly usage."""
        position = call.path("line")
        if not (position.isascii() and position.isdecimal() and len(position) <= LINE_DIGITS_MAX):
            raise ProblemError(billing_codes.INVOICE_LINE_NOT_FOUND, "a line has its position on the invoice, from 0")
        async with self._database.reading(whole=True) as connection:
            row = await invoices.get_invoice(connection, call.path("invoice"))
            why = await explanation.explain_line(connection, row, int(position), self._settings.meters)
        return explanation_to_response(why, row.currency)

    @get(
        "/billing/invoices/{invoice}/pdf",
        roles=MONEY_READERS | OWN,
        status=303,
        response_headers=("Location",),
        errors={409: "The invoice is not open yet, so it has no PDF."},
    )
    async def redirect_to_pdf(self, call: Call[Query, Nothing]) -> web.Response:
        """Redirect to the PDF of an invoice."""
        async with self._database.reading() as connection:
            row = await invoices.get_invoice(connection, call.path("invoice"))
        if row.pdf is None:
            raise ProblemError(
                billing_codes.INVOICE_STATE,
                f"the invoice is {row.state}: it has a PDF once it is open",
                params={"state": row.state},
            )
        return web.Response(status=303, headers={"Location": row.pdf})

    # ---- decisions

    @post(
        "/billing/invoices/{invoice}/hold",
        roles=BILLING,
        example={"why": "a line is disputed"},
        change=CREATE,
        errors={409: "The invoice is not a draft."},
        is_sensitive=True,
    )
    async def hold_invoice(self, call: Call[ChangeQuery, ReasonRequest], connection: AsyncConnection) -> Invoice:
        """Hold a draft invoice. It is not sent until an operator accepts it."""

        def decide(row: InvoiceRow, _: bool) -> dict[str, object]:
            if row.state != invoices.DRAFT:
                refuse_decision(row, "only a draft can be held; one that is on its way to Stripe cannot")
            return {"state": invoices.HELD, "held_why": call.body.why}

        return await self._decide(call, connection, "invoice.hold", decide)

    @post(
        "/billing/invoices/{invoice}/accept",
        roles=BILLING,
        example={"why": "checked with the customer"},
        change=CREATE,
        errors={409: "The invoice is not held."},
        is_sensitive=True,
    )
    async def accept_invoice(self, call: Call[ChangeQuery, ReasonRequest], connection: AsyncConnection) -> Invoice:
        """Accept a held invoice. It is sent unchanged, with the amount in `acceptance`."""

        def decide(row: InvoiceRow, is_written: bool) -> dict[str, object]:
            if row.state != invoices.HELD:
                refuse_decision(row, "only one that is held can be accepted")
            retry = {"try_at": 0, "tries": row.tries + 1}
            if is_written:
                return {**retry, "state": invoices.CLOSING, "accepted_why": call.body.why}
            # Nobody has seen the amounts. They are still compared with Stripe's, unless Stripe's amounts are accepted.
            is_for_good = has_total_of_stripe(row) or str(row.held_why).startswith(invoices.NOT_RATED)
            return {
                **retry,
                "state": invoices.DRAFT,
                "held_why": None,
                "accepted_why": call.body.why if is_for_good else None,
            }

        return await self._decide(call, connection, ACCEPT, decide)

    @post(
        "/billing/invoices/{invoice}/void",
        roles=BILLING,
        example={"why": "billed by mistake"},
        change=CREATE,
        errors={409: "The invoice is neither held nor open."},
        is_sensitive=True,
    )
    async def void_invoice(self, call: Call[ChangeQuery, ReasonRequest], connection: AsyncConnection) -> Invoice:
        """Void an invoice that is held or open."""

        def decide(row: InvoiceRow, is_written: bool) -> dict[str, object]:
            if row.state not in (invoices.HELD, invoices.OPEN, invoices.UNCOLLECTIBLE):
                refuse_decision(row, "only one that is held or open can be taken back")
            retry = {"try_at": 0 if is_written else row.closes_at, "tries": row.tries + 1}
            return {**retry, "state": invoices.VOIDING, "voided_why": call.body.why}

        return await self._decide(call, connection, "invoice.void", decide)

    @post(
        "/billing/invoices/{invoice}/settle",
        roles=BILLING,
        example={"amount": 9900, "why": "transfer 2027-01-20, reference 4711"},
        change=CREATE,
        errors={
            409: "The invoice is neither open nor uncollectible, or a credit note for it is under way.",
            422: "The amount is not the amount due.",
        },
        is_sensitive=True,
    )
    async def settle_invoice(
        self, call: Call[ChangeQuery, SettleInvoiceRequest], connection: AsyncConnection
    ) -> Invoice:
        """Settle an invoice that was paid by a transfer, or otherwise without Stripe."""

        def decide(row: InvoiceRow, _: bool) -> dict[str, object]:
            if row.state not in (invoices.OPEN, invoices.UNCOLLECTIBLE):
                refuse_decision(row, "only one that is open or uncollectible can be marked as paid")
            if call.body.amount != row.amount_due:
                raise reject_field(
                    "amount", f"is not what is due, {row.amount_due}: credit what is not to be paid", NOT_DUE
                )
            return {"state": invoices.SETTLING, "try_at": 0, "tries": row.tries + 1}

        return await self._decide(call, connection, "invoice.settle", decide, amount=call.body.amount)

    @post(
        "/billing/invoices/{invoice}/write-off",
        roles=BILLING,
        example={"why": "the customer is insolvent"},
        change=CREATE,
        errors={409: "The invoice is not open, or a credit note for it is under way."},
        is_sensitive=True,
    )
    async def write_off_invoice(self, call: Call[ChangeQuery, ReasonRequest], connection: AsyncConnection) -> Invoice:
        """Write off the amount due of an open invoice."""

        def decide(row: InvoiceRow, _: bool) -> dict[str, object]:
            if row.state != invoices.OPEN:
                refuse_decision(row, "only one that is open can be written off")
            return {"state": invoices.WRITING_OFF, "try_at": 0, "tries": row.tries + 1}

        return await self._decide(call, connection, "invoice.write_off", decide)

    async def _decide(
        self,
        call: Call[ChangeQuery, ReasonRequest],
        connection: AsyncConnection,
        action: str,
        decide: Decide,
        **details: object,
    ) -> Invoice:
        """Store a person's decision about an invoice. The `details` go to the audit log.

        A job carries it out at Stripe (collector/billing/period_close/invoice_delivery.py).
        """
        row = await invoices.get_invoice(connection, call.path("invoice"), lock=True)
        lines = await fetch_lines(connection, row.id)
        values = decide(row, bool(lines))
        before = await credit_notes.list_of_invoice(connection, row.id)
        if values["state"] in invoices.MARKING and any(note["state"] == credit_notes.REQUESTED for note in before):
            refuse_decision(row, "a credit note of it is on its way to Stripe: wait until that is made")
        await invoices.transition(connection, row.id, row.state, str(values.pop("state")), **values)
        after: dict[str, object] = {"why": call.body.why, **details}
        acceptance = None
        if action == ACCEPT:
            differences = await fetch_differences(connection, row)
            after["acceptance"] = acceptance = build_acceptance(row, differences, is_written=bool(lines))
        entry = AuditEntry(action, row.id, {"state": row.state, "held_why": row.held_why}, after, row.customer)
        await audit.append_entry(connection, call.caller, entry)
        decided = await invoices.get_invoice(connection, row.id)
        response = invoices.to_response(decided, lines, before)
        if acceptance is not None:
            response["acceptance"] = acceptance
        return response

    # ---- credit notes

    @post(
        "/billing/invoices/{invoice}/credit",
        roles=BILLING,
        example={"amount": 100, "why": "an outage"},
        status=201,
        change=CREATE,
        is_sensitive=True,
    )
    async def create_credit_note(
        self, call: Call[ChangeQuery, CreateCreditNoteRequest], connection: AsyncConnection
    ) -> CreditNoteResponse:
        """Create a credit note for an invoice that is open or paid."""
        row = await invoices.get_invoice(connection, call.path("invoice"), lock=True)
        try:
            note = await note_requests.request_note(connection, row, call.body.amount, call.body.why)
        except NoteRefusedError as error:
            if error.is_amount:
                raise reject_field("amount", str(error)) from None
            raise ChangeRejectedError(
                billing_codes.INVOICE_STATE, f"the invoice {error}", params={"state": row.state}
            ) from None
        await audit.append_entry(
            connection, call.caller, AuditEntry("invoice.credit", row.id, None, note, row.customer)
        )
        return cast(CreditNoteResponse, note)


async def fetch_differences(connection: AsyncConnection, row: InvoiceRow) -> list[InvoiceDifference]:
    """Return the lines of a held invoice that differ from Stripe's, the largest difference first."""
    period = Span(row.period_start, row.period_end)
    rows = await discrepancies.fetch_invoice_differences(connection, row.name, period)
    return [to_difference(row) for row in rows]


def refuse_decision(row: InvoiceRow, why: str) -> NoReturn:
    """Raise ChangeRejectedError with the state of an invoice."""
    raise ChangeRejectedError(
        billing_codes.INVOICE_STATE, f"the invoice is {row.state}: {why}", params={"state": row.state}
    )


def hide_staff_reasons(holder: Holder, invoice: Invoice) -> Invoice:
    """Return an invoice without the fields that the reader may not see.

    Only staff see the reasons of staff and the deadline for an answer to a bank.
    """
    if holder.customer is None:
        return invoice
    hidden: Invoice = {**invoice, "held_why": None, "voided_why": None, "accepted_why": None}
    if "disputes" in invoice:
        hidden["disputes"] = [{**dispute, "answer_by": None} for dispute in invoice["disputes"]]
    return hidden


def explanation_to_response(why: LineExplanation, currency: str) -> LineExplanationResponse:
    """Return the explanation of a line's amount in the API's form."""
    line, share = why.placed.line, why.share
    return {
        "invoice": why.placed.invoice,
        "line": why.placed.position,
        "text": describe_line(line, currency),
        "plan": line.version,
        "segment_start": format_timestamp(line.segment.start * 1000),
        "segment_end": format_timestamp(line.segment.end * 1000),
        "quantity": why.quantity,
        "unit_price": None if line.unit_price is None else format_unit_price(line.unit_price),
        "formula": why.formula,
        "rated": why.rated,
        "share": None
        if share is None
        else {
            "fee": share.fee,
            "paid_from": format_timestamp(share.paid.start * 1000),
            "paid_until": format_timestamp(share.paid.end * 1000),
        },
        "earlier": [
            {"invoice": one.invoice, "line": one.position, "quantity": one.line.quantity, "amount": one.line.amount}
            for one in why.before
        ],
        "amount": line.amount,
        "hours": None if why.hours is None else [{"hour": hour, "quantity": used} for hour, used in why.hours],
    }


def upcoming_to_response(
    loaded: LoadedSubscription, upcoming: invoice_lines.UpcomingInvoice, billing: Billing
) -> UpcomingInvoiceResponse:
    """Return the next invoice in the API's form."""
    period, currency = loaded.current.period, loaded.current.last.plan.currency
    described: dict[int, InvoiceLine] = {}
    amounts = amounts_to_response(upcoming.lines, currency, described)
    response: UpcomingInvoiceResponse = {
        "customer": loaded.customer.name,
        "period": periods.format_period(period),
        "period_start": format_timestamp(period.start * 1000),
        "period_end": format_timestamp(period.end * 1000),
        "usage_start": format_timestamp(loaded.current.usage_start * 1000),
        "currency": currency,
        "closes_at": format_timestamp(int((min(period.end, loaded.current.last.span.end) + billing.freeze) * 1000)),
        "subtotal": amounts["subtotal"],
        "total": amounts["total"],
        "lines": amounts["lines"],
    }
    if upcoming.projected is not None:
        days, low, high = upcoming.projected
        response["projected"] = {
            "days": days,
            "low": None if low is None else amounts_to_response(low, currency, described),
            "high": None if high is None else amounts_to_response(high, currency, described),
        }
    return response


def amounts_to_response(lines: list[RatedLine], currency: str, described: dict[int, InvoiceLine]) -> InvoiceAmounts:
    """Return lines and their sum before tax in the API's form.

    `described` has the lines of other lists by identity: a projection shares most lines with the upcoming invoice.
    """
    total = sum_amounts(lines)
    described.update({id(line): line_to_response(line, currency) for line in lines if id(line) not in described})
    return {"subtotal": total, "total": total, "lines": [described[id(line)] for line in lines]}


GROUP = Group(
    "invoices",
    "Invoices and credit notes. Amounts are in the smallest unit of their currency, such as cents.",
    InvoiceHandlers,
    rate=RequestRate(100, "customer"),
    parameters={
        "invoice": PathParameter("The id of the invoice.", find_owner=invoices.find_owner),
        "line": PathParameter("The position of the line on the invoice, from 0."),
    },
)
