"""Prepaid credits: balances, statements, purchases, corrections and refunds, and the day's books."""

import time
from datetime import date
from typing import Any

from aiohttp import web
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.base.timestamps import format_timestamp
from edgeproxy.collector.accounts import audit, customers
from edgeproxy.collector.accounts.audit import AuditEntry
from edgeproxy.collector.accounts.ids import generate_id
from edgeproxy.collector.api.billing_models import WhoseQuery
from edgeproxy.collector.api.credit_models import (
    AccountingQuery,
    BalanceQuery,
    Checkout,
    CreateAdjustmentRequest,
    CreateRefundRequest,
    CreditPurchase,
    Portal,
    PurchasesQuery,
)
from edgeproxy.collector.api.endpoint import CSV, Call, Nothing, Query
from edgeproxy.collector.api.handlers.accounts import find_idempotency_request
from edgeproxy.collector.api.handlers.billing import BillingHandlers
from edgeproxy.collector.api.ledger_models import ChangeQuery
from edgeproxy.collector.api.responses import ProblemError, answer
from edgeproxy.collector.billing.credits import checkout, consumption, credits, purchase_list, statements
from edgeproxy.collector.billing.credits.consumption import CreditMeters
from edgeproxy.collector.billing.credits.refunds import RefundSender
from edgeproxy.collector.billing.jobs.credits import get_credit_meters
from edgeproxy.collector.billing.journal import journal
from edgeproxy.collector.billing.journal.postings import CENT
from edgeproxy.collector.billing.reports import accounting
from edgeproxy.collector.billing.reports.accounting import DayNotOverError
from edgeproxy.collector.billing.stripe import customers as payers
from edgeproxy.collector.billing.stripe.client import CallOutcome, Stripe, StripeCallError
from edgeproxy.collector.ledger import queries

PDF = "application/pdf"
BUSINESS = "business"
"""The metadata of a customer that says whether it is a business: true."""
LATER = {"Retry-After": "10"}


class CreditHandlers(BillingHandlers):
    """Makes changes as those of billing are made; money goes by way of `stripe`."""

    stripe: Stripe | None = None
    """The way to Stripe; None where nobody is charged."""

    async def balance(self, call: Call[BalanceQuery, Nothing]) -> web.Response:
        """Tell what a customer has to spend, now or at a moment."""
        whose, meters = self._get_customer(call), self._meters()
        at = None if call.query.at is None else queries.parse_time("at", call.query.at) * 1000
        async with self._database.reading(whole=True) as connection:
            row = await customers.get_row(connection, whose)
            booked = await journal.fetch_balance(connection, row.id, at)
            waiting = 0 if at is not None else await consumption.fetch_pending(connection, meters, row.name)
            grants = [] if at is not None else await journal.list_grants(connection, row.id)
        available = booked - waiting
        grants_left = [
            {
                "id": grant.id,
                "millicredits": grant.rest,
                "expires_at": format_timestamp(grant.expires),
                "refundable": max(0, min(grant.refundable, available)),
            }
            for grant in grants
            if grant.rest
        ]
        amounts = {
            "balance": booked,
            "pending": waiting,
            "available": available,
            "usd": statements.format_millicredits(available),
        }
        return answer(200, {"customer": row.name, **amounts, "grants": grants_left, "at": format_timestamp(at)})

    # ---- statements

    async def statements(self, call: Call[WhoseQuery, Nothing]) -> web.Response:
        """Tell of which months there are statements."""
        whose = self._get_customer(call)
        async with self._database.reading(whole=True) as connection:
            row = await customers.get_row(connection, whose)
            months = await statements.list_months(connection, row.id)
        return answer(200, {"customer": row.name, "statements": [str(month) for month in months]})

    async def statement(self, call: Call[WhoseQuery, Nothing]) -> web.Response:
        """Tell a month, as JSON, or by the end of its name as CSV or PDF."""
        whose = self._get_customer(call)
        path = call.path("month")
        name, _, form = path.partition(".")
        try:
            month = statements.parse_month(name if form else path)
        except ValueError as error:
            raise ProblemError(404, str(error)) from None
        async with self._database.reading(whole=True) as connection:
            row = await customers.get_row(connection, whose)
            statement = (await statements.fetch_statement(connection, row.id, month))._replace(customer=row.name)
        file = {"Content-Disposition": f'attachment; filename="statement-{month}.{form}"', "Cache-Control": "no-store"}
        match form:
            case "":
                lines = [
                    {
                        "at": format_timestamp(line.at),
                        "kind": line.kind,
                        "reference": line.reference,
                        "meter": line.meter or None,
                        "model": line.model or None,
                        "millicredits": line.amount,
                    }
                    for line in statement.lines
                ]
                sums = {"opening": statement.opening, "lines": lines, "closing": statement.closing}
                return answer(200, {"customer": row.name, "month": str(month), **sums})
            case "csv":
                return web.Response(body=statements.render_csv(statement).encode(), content_type=CSV, headers=file)
            case "pdf":
                from edgeproxy.collector.billing.credits import statement_pdf

                return web.Response(body=statement_pdf.render_pdf(statement), content_type=PDF, headers=file)
        raise ProblemError(404, "there is no such statement: ask for JSON, or write .csv or .pdf behind the month")

    # ---- purchases

    async def purchases(self, call: Call[PurchasesQuery, Nothing]) -> web.Response:
        """List what a customer has bought."""
        whose, limit = self._get_customer(call), call.query.limit
        async with self._database.reading(whole=True) as connection:
            row = await customers.get_row(connection, whose)
            rows = await purchase_list.list_purchases(connection, row.id, call.query.cursor, limit + 1)
        more: dict[str, Any] = {"next": rows[limit - 1].number} if len(rows) > limit else {}
        return answer(
            200, {"customer": row.name, "purchases": [purchase_to_response(one) for one in rows[:limit]], **more}
        )

    async def receipt(self, call: Call[Query, Nothing]) -> web.Response:
        """Say where the receipt of a purchase is."""
        async with self._database.reading() as connection:
            intent = await purchase_list.get_payment_intent(connection, call.path("purchase"))
        try:
            url = None if intent is None else await purchase_list.fetch_receipt_url(self._paying(), intent)
        except StripeCallError as error:
            raise stripe_refusal(error) from None
        if url is None:
            raise ProblemError(409, "there is no receipt of this purchase")
        return web.Response(status=303, headers={"Location": url})

    async def checkout(self, call: Call[WhoseQuery, Checkout]) -> web.Response:
        """Begin to buy credits: the answer says where the browser is sent."""
        whose, body = self._get_customer(call), call.body
        self._meters()
        await self._check_selling(call)
        tax = self._billing().tax
        row, payer = await self._payer(whose)
        try:
            needs_id = tax.business_id_required and is_business(row)
            if needs_id and not await checkout.has_tax_id(self._paying(), payer):
                raise ProblemError(
                    422, "a business needs a tax id that is valid: enter it in the customer portal first"
                )
            urls = (body.success_url, body.cancel_url)
            key = f"{row.id}_checkout_{await self._key(call)}"
            made = await checkout.create_checkout_session(
                self._paying(), payer, row.id, body.millicredits, urls, tax, key
            )
        except StripeCallError as error:
            raise stripe_refusal(error) from None
        self._metrics.checkout_sessions.inc()
        about = {"session": made["id"], "millicredits": body.millicredits}
        await self._record(call, AuditEntry("credits.checkout", row.id, None, about))
        return answer(201, {"id": made["id"], "url": made["url"]})

    async def portal(self, call: Call[WhoseQuery, Portal]) -> web.Response:
        """Begin a session of the customer portal: cards, invoices, receipts, tax ids."""
        whose = self._get_customer(call)
        row, payer = await self._payer(whose)
        try:
            made = await checkout.create_portal_session(self._paying(), payer, call.body.return_url)
        except StripeCallError as error:
            raise stripe_refusal(error) from None
        await self._record(call, AuditEntry("billing.portal", row.id, None, {"session": made["id"]}))
        return answer(201, {"id": made["id"], "url": made["url"]})

    # ---- corrections

    async def adjust(self, call: Call[ChangeQuery, CreateAdjustmentRequest]) -> web.Response:
        """Give credits, take gifts back, or take usage back."""
        body = call.body
        self._meters()
        if body.expires_at is not None and (body.millicredits < 0 or body.consumption is not None):
            raise ProblemError(422, "only gifts expire", errors=[{"field": "expires_at", "detail": "leave it out"}])
        if body.consumption is not None and body.millicredits < 0:
            raise ProblemError(
                422, "some fields cannot be used", errors=[{"field": "millicredits", "detail": "is below 0"}]
            )

        async def make(connection: AsyncConnection) -> tuple[int, Any, int | None]:
            row = await customers.get_row(connection, body.customer)
            id_, caller = generate_id(), call.caller
            if body.consumption is not None:
                if not body.consumption.startswith(f"{row.id}/"):
                    raise ProblemError(404, "there is no such consumption of this customer")
                await credits.book_usage_refund(connection, caller, body.consumption, id_, body.millicredits, body.why)
                kind = "usage_refund"
            elif body.millicredits > 0:
                expires = body.expires_at
                await credits.book_gift(connection, caller, row.id, id_, body.millicredits, body.why, expires)
                kind = "gift"
            else:
                await credits.book_withdrawal(connection, caller, row.id, id_, -body.millicredits, body.why)
                kind = "withdrawal"
            now = await journal.fetch_balance(connection, row.id)
            adjustment = {
                "id": id_,
                "kind": kind,
                "customer": row.name,
                "millicredits": body.millicredits,
                "balance": now,
            }
            return 201, adjustment, None

        return await self._change(call, make, creates=True)

    async def refund(self, call: Call[ChangeQuery, CreateRefundRequest]) -> web.Response:
        """Have money go back, at most what is unspent of a purchase: held at once, then asked of Stripe."""
        body = call.body
        meters = self._meters()
        if body.millicredits is not None and body.millicredits % CENT:
            wrong = f"is not a whole number of cents, of {CENT} millicredits each"
            raise ProblemError(422, "some fields cannot be used", errors=[{"field": "millicredits", "detail": wrong}])
        stripe = self._paying()
        made: list[credits.HeldRefund] = []

        async def make(connection: AsyncConnection) -> tuple[int, Any, int | None]:
            name = (await customers.get_row(connection, await credits.get_buyer(connection, body.purchase))).name
            waiting = await consumption.fetch_pending(connection, meters, name)
            held = await credits.hold_refund(
                connection, call.caller, body.purchase, generate_id(), body.millicredits, body.why, pending=waiting
            )
            made.append(held)
            refund = {"id": held.id, "customer": name, "purchase": held.grant, "cents": held.cents, "state": "held"}
            return 202, refund, None

        response = await self._change(call, make, creates=True)
        if made and response.status == 202 and not call.query.dry_run:
            try:
                await RefundSender(self._database, stripe).send_refund(made[-1])
            except StripeCallError:
                pass  # It stays held, and is taken up again by the run.
        return response

    # ---- books

    async def accounting(self, call: Call[AccountingQuery, Nothing]) -> web.Response:
        """Tell a day of the books."""
        billing = self._billing()
        try:
            day = date.fromisoformat(call.path("date"))
            if len(call.path("date")) != 10 or day.year < 2000:
                raise ValueError
        except ValueError:
            raise ProblemError(404, "there is no such day: write it as 2027-01-31") from None
        try:
            async with self._database.writing() as connection:
                day_journal = await accounting.fetch_day_journal(connection, day, time.time())
        except DayNotOverError as error:
            raise ProblemError(409, str(error)) from None
        form = call.query.format
        if form is None:
            moved = [
                {"account": one.account, "kind": one.kind, "customer": one.customer, "millicredits": one.amount}
                for one in day_journal.movements
            ]
            return answer(200, {"date": str(day), "movements": moved, "cents": dict(day_journal.cents)})
        names = {str(account): name for account, name in billing.accounts.items()}
        file = {"Content-Disposition": f'attachment; filename="journal-{day}-{form}.csv"'}
        return web.Response(body=accounting.render_journal(day_journal, form, names), content_type=CSV, headers=file)

    # ---- who and whether

    def _meters(self) -> CreditMeters:
        """What is read of the ledger; raises ProblemError where no credits are sold."""
        meters = get_credit_meters(self._billing())
        if meters is None:
            raise ProblemError(404, "no credits are sold here: there is no billing.credits in the collector's file")
        return meters

    def _paying(self) -> Stripe:
        """The way to Stripe; raises ProblemError where there is none."""
        if self.stripe is None:
            raise ProblemError(409, "nothing can be bought or refunded: billing has mode: off in the collector's file")
        return self.stripe

    async def _payer(self, whose: str) -> tuple[Any, str]:
        """The row of a customer, and who that is at Stripe; raises ProblemError."""
        stripe = self._paying()
        async with self._database.reading() as connection:
            row = await customers.get_row(connection, whose)
        if row.deleting_since is not None:
            raise ProblemError(409, "the customer is being deleted")
        try:
            return row, await payers.get_or_create_customer(self._database, stripe, row.id, row.name)
        except StripeCallError as error:
            raise stripe_refusal(error) from None

    async def _record(self, call: Call[Any, Any], entry: AuditEntry) -> None:
        """Put on record to whom a page of Stripe's is given, before it is."""
        async with self._database.writing() as connection:
            await audit.append_entry(connection, call.caller, entry)

    async def _key(self, call: Call[Any, Any]) -> str:
        """What makes a request the same one at Stripe: the Idempotency-Key of who asks, else it is like no other."""
        idempotency_request = await find_idempotency_request(call)
        return (
            generate_id()
            if idempotency_request is None
            else f"{idempotency_request.digest[:32]}_{idempotency_request.request_sha256[:16]}"
        )


def purchase_to_response(row: Any) -> CreditPurchase:
    """Tell a purchase as the API does."""
    return {
        "id": row.id,
        "at": format_timestamp(row.at),
        "millicredits": row.paid,
        "cents": (row.paid + row.tax) // CENT,
        "tax": row.tax // CENT,
        "returned": row.returned,
        "has_receipt": row.payment is not None,
    }


def is_business(row: Any) -> bool:
    """Whether a customer is a business."""
    return customers.to_response(row)["metadata"].get(BUSINESS) == "true"


def stripe_refusal(failure: StripeCallError) -> ProblemError:
    """What a caller is told where Stripe did not do as it was asked."""
    if failure.outcome is CallOutcome.REFUSED:
        return ProblemError(409, f"Stripe refuses: {failure.message}")
    return ProblemError(503, "Stripe cannot be reached now", headers=LATER)
