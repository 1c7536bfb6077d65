"""Prepaid credits: balances, statements, purchases, automatic top-up, adjustments and refunds."""

import asyncio
from functools import partial
from operator import attrgetter
from typing import Literal, cast

from aiohttp import web
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.base.timestamps import format_timestamp
from edgeproxy.collector.accounts import customers, shown_names
from edgeproxy.collector.accounts.audit import AuditEntry, Caller
from edgeproxy.collector.accounts.change import ChangeRejectedError
from edgeproxy.collector.accounts.ids import generate_id, now_ms
from edgeproxy.collector.api.changes import find_idempotent_request
from edgeproxy.collector.api.credits.models import (
    BalanceQuery,
    CheckoutRequest,
    CreateAdjustmentRequest,
    CreateRefundRequest,
    CreditAdjustment,
    CreditBalanceResponse,
    CreditConsumption,
    CreditConsumptionList,
    CreditGrant,
    CreditPurchase,
    CreditPurchaseList,
    CreditStatement,
    CreditStatementLine,
    CreditStatementList,
    NumberedQuery,
    PaidUsageList,
    PaidUsageQuery,
    PaidUsageRow,
    Refund,
    StatementLineKind,
    StripeSession,
    TopUpRequest,
    TopUpSettings,
)
from edgeproxy.collector.api.customer_billing import (
    CustomerBillingHandlers,
    CustomerChangeQuery,
    CustomerQuery,
    build_stripe_problem,
    get_billing,
)
from edgeproxy.collector.api.endpoint import (
    BILLING,
    COMMON_ERRORS,
    CREATE,
    CSV,
    MONEY_READERS,
    OWN,
    PDF,
    AnyCall,
    Call,
    Nothing,
    Query,
    delete,
    get,
    post,
    put,
)
from edgeproxy.collector.api.field_types import ChangeQuery
from edgeproxy.collector.api.group import Group, PathParameter
from edgeproxy.collector.api.request_limits import RequestRate
from edgeproxy.collector.api.responses import ProblemError, Result, next_page
from edgeproxy.collector.billing.credits import (
    balances,
    checkout,
    consumption,
    consumption_list,
    credits,
    paid_usage,
    purchase_list,
    statements,
    top_ups,
)
from edgeproxy.collector.billing.credits.balances import CreditReport
from edgeproxy.collector.billing.credits.consumption import CreditMeters
from edgeproxy.collector.billing.credits.consumption_list import Consumption
from edgeproxy.collector.billing.credits.paid_usage import PaidUsage
from edgeproxy.collector.billing.credits.purchase_list import Purchase
from edgeproxy.collector.billing.credits.refunds import RefundSender
from edgeproxy.collector.billing.credits.statements import CalendarMonth, Statement
from edgeproxy.collector.billing.credits.top_up_decision import OFF, ON, TopUp, get_spent
from edgeproxy.collector.billing.credits.top_up_purchases import NO_TAX_ID, Buyer, find_method
from edgeproxy.collector.billing.credits.top_ups import Terms
from edgeproxy.collector.billing.invoices.declines import parse_reason
from edgeproxy.collector.billing.jobs.credits import get_credit_meters
from edgeproxy.collector.billing.journal import journal
from edgeproxy.collector.billing.journal.postings import CENT
from edgeproxy.collector.billing.stripe.client import Stripe, StripeCallError
from edgeproxy.collector.billing.stripe.customers import find_stripe_id
from edgeproxy.collector.billing.subscriptions import customer_currency, subscription_rows
from edgeproxy.collector.billing.subscriptions.subscription_rows import Subscriber
from edgeproxy.collector.database.credit_tables import credit_grants, credit_transactions
from edgeproxy.collector.database.unreadable_rows import parse_page
from edgeproxy.collector.ledger import queries
from edgeproxy.collector.problems import account_codes, billing_codes, request_codes
from edgeproxy.collector.problems.coded_error import FieldFault
from edgeproxy.config.collector.billing import Billing
from edgeproxy.config.collector.catalog import get_default_currency
from edgeproxy.config.collector.credits import MONTH_PURCHASES_MAX, Credits
from edgeproxy.config.collector.currency_units import USD, format_millicredits, get_payable_unit
from edgeproxy.config.field_codes import NOT_A_MULTIPLE, OUT_OF_RANGE

NO_CREDITS = "no credits are sold here: there is no billing.credits in the collector's file"


class CreditHandlers(CustomerBillingHandlers):
    """Handlers of credits."""

    def _get_credit_meters(self) -> CreditMeters:
        """Return the meters that spend credits. Raises ProblemError if credits are not sold."""
        meters = get_credit_meters(get_billing(self._settings))
        if meters is None:
            raise ProblemError(request_codes.NOT_CONFIGURED, NO_CREDITS)
        return meters

    def _get_terms(self) -> Credits:
        """Return the terms of credits. Raises ProblemError if they are not sold."""
        terms = get_billing(self._settings).credits
        if terms is None:
            raise ProblemError(request_codes.NOT_CONFIGURED, NO_CREDITS)
        return terms

    async def _choose_currency(
        self, connection: AsyncConnection, customer: Subscriber, currency: str | None = None
    ) -> str:
        """Return the currency of a customer's credits. Raises ChangeRejectedError."""
        sold, default = self._get_terms().meters, get_default_currency(self._settings.plans)
        return await customer_currency.choose_credit_currency(connection, customer, sold, default, currency)

    async def _fix_currency(
        self, connection: AsyncConnection, caller: Caller, customer: Subscriber, currency: str
    ) -> None:
        """Fix the currency of all charges of a customer to the currency of its credits.

        Raises ChangeRejectedError if another one was chosen meanwhile.
        """
        default = get_default_currency(self._settings.plans)
        await customer_currency.fix_currency(connection, caller, customer, currency, before=default)

    @get("/billing/balance")
    async def fetch_balance(self, call: Call[BalanceQuery, Nothing]) -> CreditBalanceResponse:
        """Fetch the credit balance of a customer."""
        customer, meters = self._get_customer(call), self._get_credit_meters()
        at = None if call.query.at is None else queries.parse_time("at", call.query.at) * 1000
        async with self._database.reading(whole=True) as connection:
            row = await customers.get_row(connection, customer)
            if at is None:
                report = await balances.fetch_report(connection, meters, row.id, row.name)
            else:
                report = CreditReport(await journal.fetch_balance(connection, row.id, at), 0, [])
            currency = await self._find_currency(connection, row.id)
        grants: list[CreditGrant] = [
            {
                "id": grant.grant.id,
                "kind": grant.origin.kind,
                "granted": grant.origin.granted,
                "granted_at": format_timestamp(grant.origin.at),
                "returned": grant.origin.returned,
                "used": grant.used,
                "millicredits": grant.left,
                "expires_at": format_timestamp(grant.grant.expires),
                "refundable": grant.refundable,
            }
            for grant in report.grants
        ]
        return {
            "customer": row.name,
            "balance": report.booked,
            "pending": report.pending,
            "available": report.available,
            "currency": currency,
            "amount": format_millicredits(report.available, currency),
            "usd": format_millicredits(report.available) if currency == USD else None,
            "grants": grants,
            "at": format_timestamp(at),
        }

    async def _find_currency(self, connection: AsyncConnection, customer: str) -> str:
        """Return the currency of a customer's credits, or the currency that its first credits would have."""
        subscriber = await subscription_rows.get_subscriber(connection, customer)
        try:
            return await self._choose_currency(connection, subscriber)
        except ChangeRejectedError:
            return subscriber.currency or USD

    # ---- statements

    @get("/billing/statements")
    async def list_statements(self, call: Call[CustomerQuery, Nothing]) -> CreditStatementList:
        """List the months that have a credit statement."""
        customer = self._get_customer(call)
        async with self._database.reading(whole=True) as connection:
            row = await customers.get_row(connection, customer)
            months = await statements.list_months(connection, row.id)
        return {"customer": row.name, "statements": [str(month) for month in months]}

    @get(
        "/billing/statements/{month}",
        response_media=(CSV, PDF),
        errors={404: "Billing is not configured, or there is no such customer or month."},
    )
    async def fetch_statement(self, call: Call[CustomerQuery, Nothing]) -> CreditStatement | web.Response:
        """Fetch the credit statement of a month, as JSON, CSV or PDF."""
        customer = self._get_customer(call)
        name, dot, suffix = call.path("month").partition(".")
        month = parse_month(name if suffix else name + dot)
        async with self._database.reading(whole=True) as connection:
            row = await customers.get_row(connection, customer)
            statement = await statements.fetch_statement(connection, row.id, month, now_ms())
            meters = get_credit_meters(get_billing(self._settings))
            if meters is not None and not statement.is_final:
                statement = statement._replace(pending=await consumption.fetch_pending(connection, meters, row.name))
            names = await shown_names.fetch_names(connection, row.name)
        statement = statement._replace(customer=names.shown, currency=row.currency or USD)
        headers = {
            "Content-Disposition": f'attachment; filename="statement-{month}.{suffix}"',
            "Cache-Control": "no-store",
        }
        match suffix:
            case "":
                return statement_to_response(statement, row.name, month)
            case "csv":
                return web.Response(body=statements.render_csv(statement).encode(), content_type=CSV, headers=headers)
            case "pdf":
                body = await asyncio.to_thread(_render_pdf, statement)  # A second for 2,000 lines.
                return web.Response(body=body, content_type=PDF, headers=headers)
        raise ProblemError(
            billing_codes.STATEMENT_NOT_FOUND,
            "there is no such statement: ask for JSON, or write .csv or .pdf behind the month",
        )

    @get(
        "/billing/statements/{month}/usage",
        errors={404: "Billing is not configured, or there is no such customer or month."},
    )
    async def list_paid_usage(self, call: Call[PaidUsageQuery, Nothing]) -> PaidUsageList:
        """List a month's usage with the purchases and gifts that paid for it."""
        customer, query = self._get_customer(call), call.query
        month = parse_month(call.path("month"))
        if query.purchase is not None and not purchase_list.can_be(query.purchase):
            raise ProblemError(request_codes.FIELDS_INVALID, "purchase: is not the id of one")
        async with self._database.reading(whole=True) as connection:
            row = await customers.get_row(connection, customer)
            rows = await paid_usage.list_paid_usage(
                connection, row.id, month, purchase=query.purchase, after=query.cursor or 0, limit=query.limit + 1
            )
        bookings = list(dict.fromkeys(row.seq for row in rows))
        last = bookings[query.limit - 1] if len(bookings) > query.limit else None
        shown = [paid_usage_to_response(row) for row in rows if last is None or row.seq <= last]
        return {"customer": row.name, "month": str(month), "usage": shown, **next_page(last)}

    @get("/billing/consumptions")
    async def list_consumptions(self, call: Call[NumberedQuery, Nothing]) -> CreditConsumptionList:
        """List the usage paid with credits, by hour, latest first."""
        customer, limit = self._get_customer(call), call.query.limit
        async with self._database.reading(whole=True) as connection:
            row = await customers.get_row(connection, customer)
            rows = await consumption_list.list_consumptions(connection, row.id, call.query.cursor, limit + 1)
        table = credit_transactions.name
        consumptions = parse_page(table, rows, limit, consumption_to_response, attrgetter("number"))
        return {"customer": row.name, "consumptions": consumptions, **next_page(consumptions.next)}

    # ---- purchases

    @get("/billing/purchases")
    async def list_purchases(self, call: Call[NumberedQuery, Nothing]) -> CreditPurchaseList:
        """List credit purchases, latest first."""
        customer, limit = self._get_customer(call), call.query.limit
        async with self._database.reading(whole=True) as connection:
            row = await customers.get_row(connection, customer)
            rows = await purchase_list.list_purchases(connection, row.id, call.query.cursor, limit + 1)
        purchases = parse_page(credit_grants.name, rows, limit, purchase_to_response, attrgetter("number"))
        return {
            "customer": row.name,
            "currency": row.currency or USD,
            "purchases": purchases,
            **next_page(purchases.next),
        }

    @get(
        "/billing/purchases/{purchase}/receipt",
        status=303,
        response_headers=("Location",),
        errors={404: COMMON_ERRORS[404], 409: "The purchase has no receipt, or billing is off."},
    )
    async def redirect_to_receipt(self, call: Call[Query, Nothing]) -> web.Response:
        """Redirect to the receipt of a purchase."""
        async with self._database.reading() as connection:
            intent = await purchase_list.get_payment_intent(connection, call.path("purchase"))
        try:
            url = None if intent is None else await purchase_list.fetch_receipt_url(self._get_stripe(), intent)
        except StripeCallError as error:
            raise build_stripe_problem(error) from None
        if url is None:
            raise ProblemError(billing_codes.RECEIPT_MISSING, "there is no receipt of this purchase")
        return web.Response(status=303, headers={"Location": url})

    @post(
        "/billing/checkout",
        roles=BILLING | OWN,
        example={"millicredits": 20000000, "success_url": "https://shop.example/paid"},
        status=201,
        headers=CREATE.headers,
        errors={
            404: "Credits are not configured, or the customer does not exist.",
            409: "Billing is off, the customer is being deleted, or Stripe refuses.",
        },
        rate=RequestRate(10, "address"),
    )
    async def create_checkout_session(self, call: Call[CustomerQuery, CheckoutRequest]) -> StripeSession:
        """Create a checkout session at Stripe to buy credits."""
        customer, body = self._get_customer(call), call.body
        terms = self._get_terms()
        await self._check_selling(call.holder)
        tax, stripe = get_billing(self._settings).tax, self._get_stripe()
        async with self._database.reading() as connection:
            subscriber = await subscription_rows.get_subscriber(connection, customer)
            currency = await self._choose_currency(connection, subscriber, body.currency)
        require_purchase(body.millicredits, currency, terms)
        payer = await self._get_payer(customer)
        async with self._database.writing() as connection:
            await self._fix_currency(connection, call.caller, subscriber, currency)
        try:
            needs_tax_id = tax.business_id_required and payer.is_business
            if needs_tax_id and not await checkout.has_tax_id(stripe, payer.stripe_id):
                raise ProblemError(
                    billing_codes.TAX_NUMBER_MISSING,
                    "a business needs a tax id that is valid: enter it in the customer portal first",
                )
            urls = (body.success_url, body.cancel_url)
            key = f"{payer.id}_checkout_{generate_stripe_key(call)}"
            session = await checkout.create_checkout_session(
                stripe, payer.stripe_id, payer.id, body.millicredits, urls, tax, key, currency
            )
        except StripeCallError as error:
            raise build_stripe_problem(error) from None
        self._metrics.checkout_sessions.inc()
        details = {"session": session["id"], "millicredits": body.millicredits, "currency": currency}
        await self._record(call, AuditEntry("credits.checkout", payer.id, None, details, payer.id))
        return {"id": session["id"], "url": session["url"]}

    # ---- automatic top-up

    @get("/billing/credits/top-up")
    async def fetch_top_up(self, call: Call[CustomerQuery, Nothing]) -> TopUpSettings:
        """Fetch the automatic top-up of a customer's credits."""
        customer = self._get_customer(call)
        self._get_terms()
        async with self._database.reading(whole=True) as connection:
            row = await customers.get_row(connection, customer)
            top_up = await top_ups.find_top_up(connection, row.id)
            currency = await self._find_currency(connection, row.id)
        return top_up_to_response(row.name, currency, top_up, now_ms())

    @put(
        "/billing/credits/top-up",
        roles=BILLING | OWN,
        example={"below": 5000000, "millicredits": 20000000, "month_max": 100000000},
        errors={
            404: "Credits are not configured, or the customer does not exist.",
            409: "Billing is off, the customer is being deleted, or has no saved payment method.",
        },
        rate=RequestRate(10, "customer"),
    )
    async def put_top_up(self, call: Call[CustomerChangeQuery, TopUpRequest]) -> Result[TopUpSettings]:
        """Turn automatic top-up on or change it. The saved payment method pays when few credits are left."""
        customer, body, terms = self._get_customer(call), call.body, self._get_terms()
        await self._check_selling(call.holder)
        billing, stripe = get_billing(self._settings), self._get_stripe()
        if billing.tax.stripe_tax:
            raise ProblemError(billing_codes.TOP_UP_NOT_OFFERED, "credits cannot be topped up while Stripe adds tax")
        async with self._database.reading() as connection:
            row = await customers.get_row(connection, customer)
            subscriber = await subscription_rows.get_subscriber(connection, customer)
            currency = await self._choose_currency(connection, subscriber)
            buyer = Buyer(row, await find_stripe_id(connection, row.id))
        require_top_up(body, currency, terms)
        await self._require_method(buyer, billing, stripe)

        async def turn_on(connection: AsyncConnection) -> Result[TopUpSettings]:
            await self._fix_currency(connection, call.caller, subscriber, currency)
            own = await customers.get_row(connection, row.id, lock=True)
            if own.deleting_since is not None:
                raise ChangeRejectedError(account_codes.CUSTOMER_DELETING, "the customer is being deleted")
            amounts = Terms(body.below, body.millicredits, body.month_max)
            top_up = await top_ups.turn_on(connection, call.caller, own, amounts, now_ms())
            return Result(top_up_to_response(own.name, currency, top_up, now_ms()))

        return await self._change(call, turn_on)

    async def _require_method(self, buyer: Buyer, billing: Billing, stripe: Stripe) -> None:
        """Raise ProblemError if a customer has no saved payment method, or lacks a required tax id."""
        try:
            _, obstacle = await find_method(stripe, buyer, billing)
        except StripeCallError as error:
            raise build_stripe_problem(error) from None
        if obstacle == NO_TAX_ID:
            raise ProblemError(
                billing_codes.TAX_NUMBER_MISSING, f"{obstacle.message}: enter it in the customer portal first"
            )
        if obstacle is not None:
            raise ProblemError(
                billing_codes.PAYMENT_METHOD_MISSING, f"{obstacle.message}: add one in the customer portal first"
            )

    @delete("/billing/credits/top-up", roles=BILLING | OWN)
    async def delete_top_up(self, call: Call[CustomerChangeQuery, Nothing]) -> Result[TopUpSettings]:
        """Turn automatic top-up off. A payment that is under way goes on."""
        customer = self._get_customer(call)
        self._get_terms()

        async def turn_off(connection: AsyncConnection) -> Result[TopUpSettings]:
            row = await customers.get_row(connection, customer, lock=True)
            top_up = await top_ups.turn_off(connection, call.caller, row.id, now_ms())
            currency = await self._find_currency(connection, row.id)
            return Result(top_up_to_response(row.name, currency, top_up, now_ms()))

        return await self._change(call, turn_off)

    # ---- adjustments and refunds

    @post(
        "/billing/credits/adjust",
        roles=BILLING,
        example={"customer": "acme", "millicredits": 5000000, "why": "an outage"},
        status=201,
        change=CREATE,
        errors={404: "Credits are not configured, or the customer or consumption does not exist."},
        is_sensitive=True,
    )
    async def create_adjustment(self, call: Call[ChangeQuery, CreateAdjustmentRequest]) -> Result[CreditAdjustment]:
        """Adjust credits: give credits, withdraw gifts, or return usage."""
        body = call.body
        meters = self._get_credit_meters()
        if body.expires_at is not None and (body.millicredits < 0 or body.consumption is not None):
            raise ProblemError(
                request_codes.FIELDS_INVALID,
                "only gifts expire",
                [FieldFault("expires_at", "leave it out")],
            )
        if body.consumption is not None and body.millicredits < 0:
            raise ProblemError(
                request_codes.FIELDS_INVALID,
                "some fields cannot be used",
                [FieldFault("millicredits", "is below 0", OUT_OF_RANGE)],
            )

        async def book_adjustment(connection: AsyncConnection) -> Result[CreditAdjustment]:
            row = await subscription_rows.get_subscriber(connection, body.customer)
            currency = await self._choose_currency(connection, row)
            adjustment_id, caller = generate_id(), call.caller
            kind: Literal["gift", "withdrawal", "usage_refund"]
            if body.consumption is not None:
                if not body.consumption.startswith(f"{row.id}/"):
                    raise ProblemError(
                        billing_codes.CONSUMPTION_NOT_FOUND, "there is no such consumption of this customer"
                    )
                await credits.book_usage_refund(
                    connection, caller, body.consumption, adjustment_id, body.millicredits, body.why
                )
                kind = "usage_refund"
            elif body.millicredits > 0:
                expires = body.expires_at
                amount = body.millicredits
                await credits.book_gift(connection, caller, row.id, adjustment_id, amount, body.why, expires, currency)
                await self._fix_currency(connection, caller, row, currency)
                kind = "gift"
            else:
                pending = await consumption.fetch_pending_locked(connection, meters, row.name)
                await credits.book_withdrawal(
                    connection, caller, row.id, adjustment_id, -body.millicredits, body.why, pending=pending
                )
                kind = "withdrawal"
            balance = await journal.fetch_balance(connection, row.id)
            adjustment: CreditAdjustment = {
                "id": adjustment_id,
                "kind": kind,
                "customer": row.name,
                "millicredits": body.millicredits,
                "balance": balance,
            }
            return Result(adjustment)

        return await self._change(call, book_adjustment)

    @post(
        "/billing/refunds",
        roles=BILLING,
        example={"purchase": "cs_1", "why": "requested by mail"},
        status=202,
        change=CREATE,
        errors={
            404: "Credits are not configured, or the purchase does not exist.",
            503: "The database or Stripe is unavailable; try again.",
        },
        is_sensitive=True,
    )
    async def create_refund(self, call: Call[ChangeQuery, CreateRefundRequest]) -> Result[Refund]:
        """Refund a purchase, at most its unspent part."""
        body = call.body
        meters = self._get_credit_meters()
        if body.millicredits is not None and body.millicredits % CENT:
            detail = f"is not a whole number of cents, of {CENT} millicredits each"
            raise ProblemError(
                request_codes.FIELDS_INVALID,
                "some fields cannot be used",
                [FieldFault("millicredits", detail, NOT_A_MULTIPLE)],
            )
        sender = RefundSender(self._database, self._get_stripe())

        async def hold_refund(connection: AsyncConnection) -> Result[Refund]:
            buyer = await customers.get_row(connection, await credits.get_buyer(connection, body.purchase))
            name = buyer.name
            pending = await consumption.fetch_pending_locked(connection, meters, name)
            refund = await credits.hold_refund(
                connection, call.caller, body.purchase, generate_id(), body.millicredits, body.why, pending=pending
            )
            # Otherwise the lower balance would buy the credits again.
            await top_ups.turn_off(connection, call.caller, buyer.id, now_ms())
            described: Refund = {
                "id": refund.id,
                "customer": name,
                "purchase": refund.grant,
                "cents": refund.cents,
                "state": "held",
                "currency": buyer.currency or USD,
            }
            return Result(described, follow_up=partial(sender.try_refund, refund))

        return await self._change(call, hold_refund)


def generate_stripe_key(call: AnyCall) -> str:
    """Return an idempotency key for Stripe, derived from the caller's Idempotency-Key or random."""
    request = find_idempotent_request(call)
    return generate_id() if request is None else f"{request.digest[:32]}_{request.request_sha256[:16]}"


def statement_to_response(statement: Statement, customer: str, month: CalendarMonth) -> CreditStatement:
    """Return a statement in the API's form."""
    lines: list[CreditStatementLine] = [
        {
            "at": format_timestamp(line.at),
            "kind": cast(StatementLineKind, line.kind),
            "reference": line.reference,
            "meter": line.meter or None,
            "model": line.model or None,
            "millicredits": line.amount,
        }
        for line in statement.lines
    ]
    return {
        "customer": customer,
        "month": str(month),
        "currency": statement.currency,
        "opening": statement.opening,
        "lines": lines,
        "closing": statement.closing,
        "pending": statement.pending,
        "is_final": statement.is_final,
        "as_of": format_timestamp(statement.until),
    }


def require_purchase(millicredits: int, currency: str, terms: Credits) -> None:
    """Raise ProblemError if this amount of credits cannot be bought in a currency."""
    least, most = terms.find_bounds(currency)
    unit = get_payable_unit(currency)
    if not least <= millicredits // CENT <= most or millicredits % (CENT * unit):
        why = f"is not between {least * CENT} and {most * CENT}, in parts of {CENT * unit}, as for {currency.upper()}"
        raise ProblemError(
            request_codes.FIELDS_INVALID,
            "some fields cannot be used",
            [FieldFault("millicredits", why, OUT_OF_RANGE)],
        )


def require_top_up(body: TopUpRequest, currency: str, terms: Credits) -> None:
    """Raise ProblemError if credits cannot be topped up by these amounts in a currency."""
    require_purchase(body.millicredits, currency, terms)
    unit, most = CENT * get_payable_unit(currency), terms.find_bounds(currency)[1] * CENT * MONTH_PURCHASES_MAX
    amounts = {"below": (body.below, unit, body.millicredits), "month_max": (body.month_max, body.millicredits, most)}
    faults = [
        FieldFault(name, f"is not between {least} and {greatest}, in parts of {unit}", OUT_OF_RANGE)
        for name, (amount, least, greatest) in amounts.items()
        if not least <= amount <= greatest or amount % unit
    ]
    if faults:
        raise ProblemError(request_codes.FIELDS_INVALID, "some fields cannot be used", faults)


def top_up_to_response(customer: str, currency: str, top_up: TopUp | None, now: int) -> TopUpSettings:
    """Return the automatic top-up of a customer, by name, in the API's form."""
    amounts = (None, None, None) if top_up is None else (top_up.below, top_up.amount, top_up.month_max)
    waits = top_up is not None and top_up.state == ON and top_up.declines > 0 and top_up.purchase is None
    return {
        "customer": customer,
        "currency": currency,
        "state": OFF if top_up is None else top_up.state,
        "below": amounts[0],
        "millicredits": amounts[1],
        "month_max": amounts[2],
        "spent": 0 if top_up is None else get_spent(top_up, now),
        "pending": 0 if top_up is None or top_up.purchase is None else top_up.purchase_amount,
        "declines": 0 if top_up is None else top_up.declines,
        "decline_reason": parse_reason(top_up.decline_reason) if top_up is not None and top_up.declines else None,
        "retry_at": format_timestamp(top_up.due_at) if top_up is not None and waits else None,
    }


def parse_month(text: str) -> CalendarMonth:
    """Parse the month in a path. Raises ProblemError."""
    try:
        return statements.parse_month(text)
    except ValueError as error:
        raise ProblemError(billing_codes.STATEMENT_NOT_FOUND, str(error)) from None


def paid_usage_to_response(one: PaidUsage) -> PaidUsageRow:
    """Return usage and its payment in the API's form."""
    return {
        "hour": format_timestamp(one.slice * 1000) if one.slice else None,
        "booked_at": format_timestamp(one.at),
        "consumption": one.consumption,
        "purchase": one.purchase or None,
        "payment_intent": one.payment_intent,
        "millicredits": one.amount,
    }


def consumption_to_response(consumption: Consumption) -> CreditConsumption:
    """Return a consumption in the API's form."""
    return {
        "id": consumption.id,
        "at": format_timestamp(consumption.at),
        "hour": format_timestamp(consumption.hour * 1000),
        "millicredits": consumption.amount,
        "reversed": consumption.reversed,
        "meters": [
            {"meter": part.meter, "model": part.model or None, "millicredits": part.amount}
            for part in consumption.meters
        ],
    }


def purchase_to_response(purchase: Purchase) -> CreditPurchase:
    """Return a purchase in the API's form."""
    return {
        "id": purchase.id,
        "at": format_timestamp(purchase.at),
        "millicredits": purchase.paid,
        "cents": (purchase.paid + purchase.tax) // CENT,
        "tax": purchase.tax // CENT,
        "returned": purchase.returned,
        "has_receipt": purchase.payment is not None,
        "is_automatic": purchase.id.startswith(top_ups.PURCHASE),
    }


def _render_pdf(statement: Statement) -> bytes:
    from edgeproxy.collector.billing.credits import statement_pdf  # Few need it, and it takes a second to import.

    return statement_pdf.render_pdf(statement)


GROUP = Group(
    "credits",
    "Prepaid credits. Amounts are millicredits: 1,000,000 are one US dollar.",
    CreditHandlers,
    roles=MONEY_READERS | OWN,
    rate=RequestRate(100, "customer"),
    errors={404: "Billing is not configured, or the customer does not exist."},
    parameters={
        "month": PathParameter("The calendar month in UTC, such as 2027-03. Append .csv or .pdf for a file."),
        "purchase": PathParameter("The id of the purchase.", find_owner=purchase_list.find_owner),
    },
)
