"""`collection: invoice_items`: usage is rated here, and Stripe's invoice gets one item for each of our lines.

Every step first looks for the object that it would create. After a crash or a lost answer the step is repeated, or
found done. Three things prevent a second invoice: our unique row; our id in the metadata of Stripe's invoice, which
each step searches for; and the Idempotency-Key, which a repeated step sends again.
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
from edgeproxy.collector.billing.invoices.declines import PaymentFailure, find_reason
from edgeproxy.collector.billing.invoices.invoice_row import InvoiceRow
from edgeproxy.collector.billing.invoices.invoices import INVOICE_METADATA
from edgeproxy.collector.billing.mismatch import Comparison
from edgeproxy.collector.billing.rating.money import format_amount
from edgeproxy.collector.billing.rating.periods import format_period
from edgeproxy.collector.billing.rating.rater import RatedLine, Span
from edgeproxy.collector.billing.stripe import billing_details
from edgeproxy.collector.billing.stripe.client import CallOutcome, Stripe, StripeCallError, StripeObject
from edgeproxy.collector.billing.stripe.customers import StripeCustomers, find_payment_method
from edgeproxy.collector.billing.subscriptions.changes import PERIOD
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.languages.billing_words import INVOICE_KINDS
from edgeproxy.config.collector.billing import Billing
from edgeproxy.config.collector.currency_units import CHARGE_MAX
from edgeproxy.config.collector.seller import Seller

POSITION = "edgeproxy_line"
"""The metadata key of a Stripe item that holds our position."""
DAYS_UNTIL_DUE = 14
"""Customers have this many days to pay an invoice that is sent to them."""
DRAFT = "draft"
"""The state of a draft at Stripe."""


class InvoiceMismatchError(Exception):
    """Stripe's draft differs from our rater's lines. The message is for the person who decides."""

    def __init__(self, why: str, rows: Sequence[Comparison] = ()) -> None:
        super().__init__(why)
        self.rows = rows
        """The amount of each line in both books, by meter or kind.

        For units of a meter, the meter's name ends with UNITS_SUFFIX.
        """


class InvoiceItems:
    """Creates and closes invoices at Stripe."""

    def __init__(self, database: Database, stripe: Stripe) -> None:
        self._database = database
        self._stripe = stripe
        self._customers = StripeCustomers(database, stripe)

    async def prepare_draft(self, row: InvoiceRow, billing: Billing) -> StripeObject:
        """Return the draft at Stripe, or create it. Raises StripeCallError."""
        customer = await self._customers.get_or_create(
            row.customer, row.name, tries=row.tries, since=row.created_at // 1000
        )
        row, invoice = await self._find_invoice(row, customer)
        if invoice is None:
            stripe_customer = await self._customers.fetch_payer(row.customer, customer)
            invoice = await self._stripe.call(
                "v1.invoices.create",
                key=build_idempotency_key(row, "create"),
                customer=customer,
                currency=row.currency,
                # The invoice is finalized here, after its lines were compared. Stripe must not finalize or charge it on
                # its own.
                auto_advance=False,
                # Items that others left for the next invoice are not part of our lines.
                pending_invoice_items_behavior="exclude",
                metadata={INVOICE_METADATA: row.id},
                **({"automatic_tax": {"enabled": True}} if billing.tax.stripe_tax else {}),
                **build_seller_parameters(billing.seller),
                **build_collection_parameters(row, stripe_customer),
            )
        if row.stripe_id != invoice["id"]:
            async with self._database.writing() as connection:
                await invoices.update_invoice(connection, row.id, stripe_id=invoice["id"])
        return invoice

    async def close_invoice(self, row: InvoiceRow, billing: Billing) -> StripeObject:
        """Deliver an invoice with written lines: charge or send it. Return Stripe's invoice.

        Raises InvoiceMismatchError and StripeCallError.
        """
        invoice = await self.prepare_draft(row, billing)
        is_draft = invoice["status"] == DRAFT
        async with self._database.reading() as connection:
            lines = await line_rows.fetch_lines(connection, row.id)
        if is_draft:
            invoice = await self._add_items(row, invoice, lines)
        if row.accepted_why is None:  # This also checks an invoice that was finalized by an earlier try or by a person.
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
        """Charge a customer with a payment method, or send the invoice once.

        `is_new` means that it was a draft a moment ago, so it cannot have been sent.
        """
        if invoice["collection_method"] == "send_invoice" and not await self._has_payment_method(row.customer):
            if not is_new and await self._was_sent(invoice):
                return invoice
            return await self._stripe.call(
                "v1.invoices.send_invoice", invoice["id"], key=build_idempotency_key(row, "send")
            )
        return await pay_invoice(self._stripe, invoice["id"], build_idempotency_key(row, "pay"))

    async def _has_payment_method(self, customer: str) -> bool:
        """Return whether a customer, by id, has got a payment method since its invoice was drafted."""
        async with self._database.reading() as connection:
            return await billing_details.has_payment_method(connection, customer)

    async def _was_sent(self, invoice: StripeObject) -> bool:
        """Return whether Stripe has sent an invoice. Only an event shows that, and Stripe stores events for 30 days."""
        since = invoice["status_transitions"]["finalized_at"]
        events = await self._stripe.list_all("v1.events.list", type="invoice.sent", created={"gte": since})
        return any(event["data"]["object"]["id"] == invoice["id"] for event in events)

    async def void_invoice(self, row: InvoiceRow) -> StripeObject | None:
        """Void an invoice at Stripe, or return None if nothing is left of it there. Raises StripeCallError."""
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
        """Mark an invoice at Stripe as paid elsewhere or as uncollectible, by its state here, unless it is settled
        there.

        Returns Stripe's invoice. Raises StripeCallError.
        """
        invoice = await self.fetch_invoice(row)
        key = build_idempotency_key(row, row.state)
        if row.state == invoices.SETTLING and invoice["status"] in ("open", "uncollectible"):
            return await self._stripe.call("v1.invoices.pay", invoice["id"], key=key, paid_out_of_band=True)
        if row.state == invoices.WRITING_OFF and invoice["status"] == "open":
            return await self._stripe.call("v1.invoices.mark_uncollectible", invoice["id"], key=key)
        return invoice

    async def fetch_invoice(self, row: InvoiceRow) -> StripeObject:
        """Fetch an invoice from Stripe. Raises StripeCallError."""
        assert row.stripe_id is not None
        return await self._stripe.call("v1.invoices.retrieve", row.stripe_id)

    async def create_credit_note(self, note: CreditNote, row: InvoiceRow) -> StripeObject:
        """Create a credit note, and return it. The money of a paid invoice returns the way it came.

        Raises NoteRefusedError and StripeCallError.
        """
        notes = await self._stripe.list_all("v1.credit_notes.list", invoice=row.stripe_id)
        for existing in notes:
            # A crash may have come after the creation. A second credit note would return the money twice.
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
        """Return the row and its invoice at Stripe, or None. A replaced Stripe invoice is removed from the row."""
        row, current = await self._fetch_current(row)
        if current is not None:
            return row, current
        # The metadata finds an invoice whose answer was lost. An invoice that was given up has the same metadata.
        replaced = row.replaced_ids.split(",")
        for invoice in await self._stripe.list_all("v1.invoices.list", customer=customer):
            if (invoice.get("metadata") or {}).get(INVOICE_METADATA) == row.id and invoice["id"] not in replaced:
                return row, invoice
        return row, None

    async def _fetch_current(self, row: InvoiceRow) -> tuple[InvoiceRow, StripeObject | None]:
        """Return the row and the Stripe invoice that it names, or None.

        An invoice that is gone, or that a person finalized without our lines, is given up.
        """
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
        """Create the missing items of an invoice with one call, and return the invoice.

        One call is enough for all, because calls to an endpoint are limited. If Stripe computes the tax, each item must
        say that tax is added, which takes one call per item.
        """
        items = []
        if invoice["lines"]["data"]:
            # The invoice items behind the lines are not used: they need not have the metadata of an added line.
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
    """Return the Idempotency-Key of a step.

    Stripe repeats its answer, including a failure, for 24 hours. After a failure without an effect, the key changes.
    """
    suffix = f"_{row.tries}" if row.tries else ""
    if row.replaced_ids:
        suffix += f"_r{row.replaced_ids.count(',') + 1}"
    return f"{row.id}_{row.customer}_{row.period}_{row.kind}_{step}{suffix}"


async def pay_invoice(stripe: Stripe, invoice: str, key: str) -> StripeObject:
    """Charge the customer's payment method for an open invoice. Return the invoice as `fetch_payment` does.

    Raises StripeCallError.
    """
    try:
        stripe_invoice = await stripe.call("v1.invoices.pay", invoice, key=key)
    except StripeCallError as error:
        if error.outcome is not CallOutcome.REFUSED:
            raise
        # The card was declined, a debit is under way, or the invoice is paid by now.
        return await fetch_payment(
            stripe, invoice, refused=PaymentFailure(error.message, find_reason(error.decline_code, error.code))
        )
    return await fetch_payment(stripe, invoice) if stripe_invoice["status"] == "open" else stripe_invoice


async def fetch_payment(stripe: Stripe, invoice: str, *, refused: PaymentFailure | None = None) -> StripeObject:
    """Return an invoice after an attempt to pay it. Raises StripeCallError.

    If the invoice is open, its customer is expanded, and `edgeproxy_refused` holds the reason for the failed payment:
    `refused` if known, or None if a payment is under way.
    """
    expand = ["customer", *stripe_payments.EXPANDED]
    stripe_invoice = await stripe.call("v1.invoices.retrieve", invoice, expand=expand)
    if stripe_invoice["status"] != "open":
        return stripe_invoice
    is_under_way = stripe_payments.is_under_way(stripe_invoice)
    why = None if is_under_way else refused or stripe_payments.find_failure(stripe_invoice)
    return stripe_invoice | {"edgeproxy_refused": why}


def build_collection_parameters(row: InvoiceRow, stripe_customer: StripeObject) -> StripeObject:
    """Return the parameters for the way to pay: by the payment method on file, or by an invoice that is sent.

    The description, at the end of Stripe's PDF, says in words what is charged, and what the customer does.
    """
    content = INVOICE_KINDS.get(row.kind.partition("-")[0], INVOICE_KINDS[PERIOD])
    start, end = (format_period(Span(second, second)) for second in (row.period_start, row.period_end))
    about = f"{content}, {start} to {end}."
    if find_payment_method(stripe_customer) is not None:
        todo = "The stored payment method is charged. Unless that fails, there is nothing to do."
        return {"collection_method": "charge_automatically", "description": f"{about} {todo}"}
    about = f"{about} Please pay by the due date."
    return {"collection_method": "send_invoice", "days_until_due": DAYS_UNTIL_DUE, "description": about}


def build_seller_parameters(seller: Seller | None) -> StripeObject:
    """Return the parameters that print the configured seller and its tax number on Stripe's page and PDF.

    Stripe prints the name and address of its account above, and a tax number only if it is registered there.
    """
    if seller is None:
        return {}
    number = () if seller.tax_number is None else (f"Tax number: {seller.tax_number}",)
    return {"footer": "\n".join((seller.name, *seller.address, *number))}


def check_chargeable(row: InvoiceRow) -> None:
    """Raise InvoiceMismatchError if an invoice exceeds the most that Stripe charges at once, unless it was accepted."""
    if row.total > CHARGE_MAX and row.accepted_why is None:
        raise InvoiceMismatchError(
            f"it comes to {format_amount(row.total, row.currency)}, and Stripe charges "
            f"{format_amount(CHARGE_MAX, row.currency)} at most: if it is right, void it, and "
            "have it paid in another way"
        )


def check_agreement(
    invoice: StripeObject, items: Sequence[StripeObject], lines: Sequence[RatedLine], name: str
) -> None:
    """Raise InvoiceMismatchError unless Stripe's draft for a customer, by name, has exactly our lines."""
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
    """Return the amount of each line of a customer's invoice in both books.

    Items without a line of ours have no meter.
    """
    amounts: dict[str, int] = {}
    for item in items:
        position = (item.get("metadata") or {}).get(POSITION, "")
        amounts[position] = amounts.get(position, 0) + item["amount"]
    rows = [
        Comparison(name, line.meter or line.kind, line.amount, amounts.pop(str(position), 0))
        for position, line in enumerate(lines)
    ]
    return [*rows, *(Comparison(name, "another line", 0, cents) for cents in amounts.values())]
