"""`collection: invoice_items`: usage is rated here, and Stripe's invoice is made of our lines, an item each.

Every step first looks for what it is about to make. After a kill, or an answer that is lost, the step is repeated, or
found done. Three things keep an invoice to one: our row, which is unique; our id in the metadata of Stripe's, which is
searched for; and the Idempotency-Key, which is the same for the same step.
"""

from collections import Counter
from collections.abc import Sequence
from functools import partial

from edgeproxy.collector.billing.invoices import (
    credit_decision,
    credit_notes,
    invoices,
    line_rows,
    note_requests,
    stripe_payments,
    stripe_reports,
)
from edgeproxy.collector.billing.invoices.credit_notes import CreditNote
from edgeproxy.collector.billing.invoices.invoices import INVOICE_METADATA, InvoiceRow
from edgeproxy.collector.billing.mismatch import Comparison
from edgeproxy.collector.billing.rating.money import format_amount
from edgeproxy.collector.billing.rating.periods import format_period
from edgeproxy.collector.billing.rating.rater import RatedLine, Span
from edgeproxy.collector.billing.stripe import billing_details
from edgeproxy.collector.billing.stripe.client import CallOutcome, Stripe, StripeCallError, StripeObject
from edgeproxy.collector.billing.stripe.customers import StripeCustomers, find_payment_method
from edgeproxy.collector.database.database import Database
from edgeproxy.config.collector.billing import Billing
from edgeproxy.config.collector.currency_units import CHARGE_MAX

POSITION = "edgeproxy_line"
"""The metadata key of an item at Stripe that holds our position."""
DAYS_UNTIL_DUE = 14
"""Days that customers have to pay an invoice that is sent to them."""
DRAFT = "draft"
"""The state of a draft at Stripe."""


class InvoiceMismatchError(Exception):
    """Stripe's draft differs from our rater's lines. The message is for the person who decides."""

    def __init__(self, why: str, rows: Sequence[Comparison] = ()) -> None:
        super().__init__(why)
        self.rows = rows
        """The amount of each line in both books, by meter or kind; or units of a meter, with UNITS_SUFFIX behind its
        name."""


class InvoiceItems:
    """Creates and closes invoices at Stripe."""

    def __init__(self, database: Database, stripe: Stripe) -> None:
        self._database = database
        self._stripe = stripe
        self._customers = StripeCustomers(database, stripe)

    async def prepare_draft(self, row: InvoiceRow, billing: Billing) -> StripeObject:
        """Return the draft at Stripe, which is created where there is none. Raises StripeCallError."""
        customer = await self._customers.get_or_create(
            row.customer, row.name, tries=row.tries, since=row.created_at // 1000
        )
        row, invoice = await self._find_invoice(row, customer)
        if invoice is None:
            stripe_customer = await self._customers.fetch_with_email(row.customer, customer)
            invoice = await self._stripe.call(
                "v1.invoices.create",
                key=build_idempotency_key(row, "create"),
                customer=customer,
                currency=row.currency,
                auto_advance=False,
                pending_invoice_items_behavior="exclude",
                metadata={INVOICE_METADATA: row.id},
                description=f"{format_period(Span(row.period_start, row.period_end))}, {row.kind}",
                **({"automatic_tax": {"enabled": True}} if billing.tax.stripe_tax else {}),
                **build_collection_parameters(stripe_customer),
            )
        if row.stripe_id != invoice["id"]:
            async with self._database.writing() as connection:
                await invoices.update_invoice(connection, row.id, stripe_id=invoice["id"])
        return invoice

    async def close_invoice(self, row: InvoiceRow, billing: Billing) -> StripeObject:
        """Deliver an invoice whose lines are written: it is paid, or sent. Return it as Stripe has it.

        Raises InvoiceMismatchError and StripeCallError.
        """
        invoice = await self.prepare_draft(row, billing)
        is_draft = invoice["status"] == DRAFT
        async with self._database.reading() as connection:
            lines = await line_rows.fetch_lines(connection, row.id)
        if is_draft:
            invoice = await self._add_items(row, invoice, lines)
        if row.accepted_why is None:  # Also what is finalized: by an earlier try, or by hand.
            items = await self._stripe.list_all("v1.invoices.line_items.list", invoice["id"])
            check_agreement(invoice, items, lines, row.name)
        if is_draft:
            invoice = await self._finalize(row, invoice)
        if invoice["status"] == "open":
            invoice = await self._collect_payment(row, invoice, is_new=is_draft)
        return invoice

    async def _finalize(self, row: InvoiceRow, invoice: StripeObject) -> StripeObject:
        key = build_idempotency_key(row, "finalize")
        return await self._stripe.call("v1.invoices.finalize_invoice", invoice["id"], key=key, auto_advance=False)

    async def _collect_payment(self, row: InvoiceRow, invoice: StripeObject, *, is_new: bool) -> StripeObject:
        """Charge a customer who can be charged by now, and send the invoice to the others, once. `is_new`: it was a
        draft a moment ago, so nobody can have sent it."""
        if invoice["collection_method"] == "send_invoice" and not await self._has_payment_method(row.customer):
            if not is_new and await self._was_sent(invoice):
                return invoice
            return await self._stripe.call(
                "v1.invoices.send_invoice", invoice["id"], key=build_idempotency_key(row, "send")
            )
        return await pay_invoice(self._stripe, invoice["id"], build_idempotency_key(row, "pay"))

    async def _has_payment_method(self, customer: str) -> bool:
        """Return whether a customer, by id, has a payment method since its invoice was drafted."""
        async with self._database.reading() as connection:
            return await billing_details.has_payment_method(connection, customer)

    async def _was_sent(self, invoice: StripeObject) -> bool:
        """Return whether Stripe has sent an invoice. Nothing but an event says so, which Stripe keeps for 30 days."""
        since = invoice["status_transitions"]["finalized_at"]
        events = await self._stripe.list_all("v1.events.list", type="invoice.sent", created={"gte": since})
        return any(event["data"]["object"]["id"] == invoice["id"] for event in events)

    async def void_invoice(self, row: InvoiceRow) -> StripeObject | None:
        """Void an invoice at Stripe; return None where nothing is left of it there. Raises StripeCallError."""
        if row.stripe_id is None:
            return None
        try:
            invoice = await self._stripe.call("v1.invoices.retrieve", row.stripe_id)
        except StripeCallError as error:
            if error.code == "resource_missing":  # It was deleted before.
                return None
            raise
        if invoice["status"] == DRAFT:
            await self._stripe.call("v1.invoices.delete", row.stripe_id, key=build_idempotency_key(row, "delete"))
            return None
        if invoice["status"] in ("open", "uncollectible"):
            return await self._stripe.call(
                "v1.invoices.void_invoice", row.stripe_id, key=build_idempotency_key(row, "void")
            )
        return invoice

    async def mark_invoice(self, row: InvoiceRow) -> StripeObject:
        """Mark an invoice at Stripe as paid elsewhere, or as uncollectible, by its state here, unless it is settled
        there; return it. Raises StripeCallError."""
        invoice = await self.fetch_invoice(row)
        key = build_idempotency_key(row, row.state)
        if row.state == invoices.SETTLING and invoice["status"] in ("open", "uncollectible"):
            return await self._stripe.call("v1.invoices.pay", invoice["id"], key=key, paid_out_of_band=True)
        if row.state == invoices.WRITING_OFF and invoice["status"] == "open":
            return await self._stripe.call("v1.invoices.mark_uncollectible", invoice["id"], key=key)
        return invoice

    async def fetch_invoice(self, row: InvoiceRow) -> StripeObject:
        """Return an invoice as Stripe has it now. Raises StripeCallError."""
        assert row.stripe_id is not None
        return await self._stripe.call("v1.invoices.retrieve", row.stripe_id)

    async def create_credit_note(self, note: CreditNote, row: InvoiceRow) -> StripeObject:
        """Create a credit note, and return it: the money of a paid invoice goes back by the way it came. Raises
        NoteRefusedError and StripeCallError."""
        notes = await self._stripe.list_all("v1.credit_notes.list", invoice=row.stripe_id)
        for existing in notes:
            if (existing.get("metadata") or {}).get(credit_notes.METADATA) == note.id:
                return existing
        async with self._database.reading() as connection:
            parts = await note_requests.decide_request(connection, row, note.amount, note.id)
        return await self._stripe.call(
            "v1.credit_notes.create",
            key=f"{note.id}_{note.tries}",
            invoice=row.stripe_id,
            amount=note.amount,
            memo=note.why,
            metadata={credit_notes.METADATA: note.id},
            **({} if parts is None else credit_decision.to_stripe(parts)),
        )

    async def _find_invoice(self, row: InvoiceRow, customer: str) -> tuple[InvoiceRow, StripeObject | None]:
        """Return our invoice at Stripe, None where there is none, and the row, which has no other one any more."""
        row, current = await self._fetch_current(row)
        if current is not None:
            return row, current
        replaced = row.replaced_ids.split(",")
        for invoice in await self._stripe.list_all("v1.invoices.list", customer=customer):
            if (invoice.get("metadata") or {}).get(INVOICE_METADATA) == row.id and invoice["id"] not in replaced:
                return row, invoice
        return row, None

    async def _fetch_current(self, row: InvoiceRow) -> tuple[InvoiceRow, StripeObject | None]:
        """Return the invoice at Stripe that a row has, None where it has none, and the row: one that is gone, or that
        somebody has finalized without our lines, is given up."""
        if row.stripe_id is None:
            return row, None
        try:
            invoice = await self._stripe.call("v1.invoices.retrieve", row.stripe_id)
        except StripeCallError as error:
            if error.code != "resource_missing":
                raise
            invoice = {"id": row.stripe_id, "deleted": True}
        if not stripe_reports.is_replaced(row, invoice):
            return row, invoice
        async with self._database.writing() as connection:
            return await stripe_reports.replace_invoice(connection, row, invoice), None

    async def _add_items(self, row: InvoiceRow, invoice: StripeObject, lines: Sequence[RatedLine]) -> StripeObject:
        """Create the items of an invoice that are not there yet, and return the invoice: by one call, as the calls of
        an endpoint are limited.

        Where Stripe computes the tax, each item says that tax comes on top, which takes a call of its own.
        """
        items = []
        if invoice["lines"]["data"]:
            # Not the items behind them: nothing says that those have the metadata of what is added as a line.
            items = await self._stripe.list_all("v1.invoices.line_items.list", invoice["id"])
        created_positions = {(item.get("metadata") or {}).get(POSITION) for item in items}
        missing: list[StripeObject] = [
            {
                "amount": line.amount,
                "description": line_rows.describe_line(line, row.currency),
                "period": {"start": line.span.start, "end": line.span.end},
                "metadata": {POSITION: str(position)},
            }
            for position, line in enumerate(lines)
            if str(position) not in created_positions
        ]
        if (invoice.get("automatic_tax") or {}).get("enabled"):
            item_parameters = {"customer": invoice["customer"], "invoice": invoice["id"], "currency": row.currency}
            for line in missing:
                key = build_idempotency_key(row, f"item{line['metadata'][POSITION]}")
                await self._stripe.call(
                    "v1.invoice_items.create", key=key, **item_parameters, **line, tax_behavior="exclusive"
                )
            return await self._stripe.call("v1.invoices.retrieve", invoice["id"])
        if not missing:
            return invoice
        return await self._stripe.call(
            "v1.invoices.add_lines", invoice["id"], key=build_idempotency_key(row, "lines"), lines=missing
        )


def build_idempotency_key(row: InvoiceRow, step: str) -> str:
    """Return the Idempotency-Key of a step. Stripe repeats its answer for 24 hours, also a failure: after one, with
    nothing to find, the key is another."""
    suffix = f"_{row.tries}" if row.tries else ""
    if row.replaced_ids:
        suffix += f"_r{row.replaced_ids.count(',') + 1}"
    return f"{row.id}_{row.customer}_{row.period}_{row.kind}_{step}{suffix}"


async def pay_invoice(stripe: Stripe, invoice: str, key: str) -> StripeObject:
    """Charge the payment method of a customer for an open invoice, and return the invoice as `fetch_payment` does.
    Raises StripeCallError."""
    try:
        stripe_invoice = await stripe.call("v1.invoices.pay", invoice, key=key)
    except StripeCallError as error:
        if error.outcome is not CallOutcome.REFUSED:
            raise
        # A card that is refused; or a debit is under way, or the invoice is paid by now.
        return await fetch_payment(stripe, invoice, refused=error.message)
    return await fetch_payment(stripe, invoice) if stripe_invoice["status"] == "open" else stripe_invoice


async def fetch_payment(stripe: Stripe, invoice: str, *, refused: str | None = None) -> StripeObject:
    """Return an invoice whose payment was tried. One that is open has its customer expanded, and in `edgeproxy_refused`
    why the payment failed, which is `refused` where that is known; None: it is under way. Raises StripeCallError."""
    expand = ["customer", *stripe_payments.EXPANDED]
    stripe_invoice = await stripe.call("v1.invoices.retrieve", invoice, expand=expand)
    if stripe_invoice["status"] != "open":
        return stripe_invoice
    is_under_way = stripe_payments.is_under_way(stripe_invoice)
    why = None if is_under_way else refused or stripe_payments.find_failure(stripe_invoice)
    return stripe_invoice | {"edgeproxy_refused": why}


def build_collection_parameters(stripe_customer: StripeObject) -> StripeObject:
    """Return the parameters for how a customer pays: by the payment method on file, or by an invoice that is sent."""
    if find_payment_method(stripe_customer) is not None:
        return {"collection_method": "charge_automatically"}
    return {"collection_method": "send_invoice", "days_until_due": DAYS_UNTIL_DUE}


def check_chargeable(row: InvoiceRow) -> None:
    """Raise InvoiceMismatchError for an invoice of more than Stripe charges at once, unless it has been accepted."""
    if row.total > CHARGE_MAX and row.accepted_why is None:
        raise InvoiceMismatchError(
            f"it comes to {format_amount(row.total, row.currency)}, and Stripe charges "
            f"{format_amount(CHARGE_MAX, row.currency)} at most: if it is right, void it, and "
            "have it paid in another way"
        )


def check_agreement(
    invoice: StripeObject, items: Sequence[StripeObject], lines: Sequence[RatedLine], name: str
) -> None:
    """Raise InvoiceMismatchError unless Stripe's draft of a customer, by name, is made of our lines, to the cent."""
    theirs, ours = Counter(item["amount"] for item in items), Counter(line.amount for line in lines)
    due = sum(line.amount for line in lines)
    write = partial(format_amount, currency=invoice["currency"])
    if theirs != ours:
        surplus, lack = (
            ", ".join(map(write, sorted(only.elements()))) or "nothing" for only in (theirs - ours, ours - theirs)
        )
        why = f"Stripe's draft differs from ours: beside the same lines it has {surplus}, and ours {lack}"
        raise InvoiceMismatchError(why, compare_lines(name, items, lines))
    if invoice["subtotal"] != due:
        why = f"Stripe's draft has a subtotal of {write(invoice['subtotal'])}, and ours {write(due)}"
        raise InvoiceMismatchError(why, [Comparison(name, "subtotal", due, invoice["subtotal"])])
    tax = (invoice.get("automatic_tax") or {}).get("enabled")
    if tax and invoice["automatic_tax"]["status"] != "complete":
        raise InvoiceMismatchError(f"{invoices.NO_TAX}: {invoice['automatic_tax']['status']}")
    total = due + (sum(tax_amount["amount"] for tax_amount in invoice.get("total_taxes") or ()) if tax else 0)
    if invoice["total"] != total:
        why = f"Stripe's draft has a total of {write(invoice['total'])}, and ours {write(total)}"
        raise InvoiceMismatchError(why, [Comparison(name, "total", total, invoice["total"])])


def compare_lines(name: str, items: Sequence[StripeObject], lines: Sequence[RatedLine]) -> list[Comparison]:
    """Return the amount of each line of a customer's invoice in both books; what has no line of ours is of no meter."""
    amounts: dict[str, int] = {}
    for item in items:
        position = (item.get("metadata") or {}).get(POSITION, "")
        amounts[position] = amounts.get(position, 0) + item["amount"]
    rows = [
        Comparison(name, line.meter or line.kind, line.amount, amounts.pop(str(position), 0))
        for position, line in enumerate(lines)
    ]
    return [*rows, *(Comparison(name, "another line", 0, cents) for cents in amounts.values())]
