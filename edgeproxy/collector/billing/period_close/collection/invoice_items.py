"""`collection: invoice_items`: usage is rated here, and an invoice at Stripe is made of our lines, an item each.

Every step looks first for what it is about to make: a kill at any moment, or an answer that is lost, and the step is
done again, or found done. Three things keep an invoice to one: our row, which is unique; our id in the metadata of
Stripe's, which is looked for; and the Idempotency-Key, the same for the same step, for what is under way meanwhile.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from edgeproxy.collector.billing.invoices import invoices
from edgeproxy.collector.billing.mismatch import Row
from edgeproxy.collector.billing.rating.periods import name_of
from edgeproxy.collector.billing.rating.rater import Line, Span
from edgeproxy.collector.billing.stripe.client import Outcome, Stripe, StripeFailure
from edgeproxy.collector.billing.stripe.customers import Made, payer
from edgeproxy.collector.database.database import Database
from edgeproxy.config.billing import Billing

OURS, POSITION = "edgeproxy_invoice", "edgeproxy_line"
"""What says in the metadata of Stripe's objects which of ours they are."""
DAYS_UNTIL_DUE = 14
"""Days that customers have who pay by themselves."""
DRAFT = "draft"
"""Of an invoice at Stripe."""


class Differs(Exception):
    """Stripe's draft is not what our rater came to: a sentence for the person who looks at it."""

    def __init__(self, why: str, rows: Sequence[Row] = ()) -> None:
        super().__init__(why)
        self.rows = rows
        """The cents of each line in both, by what it is of; or units of a meter, with UNITS behind its name."""


class InvoiceItems:
    """Makes and closes invoices at Stripe."""

    def __init__(self, database: Database, stripe: Stripe) -> None:
        self._database = database
        self._stripe = stripe
        self._made = Made(database, stripe)

    async def begin(self, row: Any, billing: Billing) -> dict[str, Any]:
        """Have a draft at Stripe, and return it as it is now. Raises StripeFailure."""
        since = row.created_at // 1000
        customer = await payer(
            self._database, self._stripe, row.customer, row.name, tries=row.tries, since=since, before=self._made
        )
        found = await self._find(row, customer)
        if found is None:
            person = await self._stripe.call("v1.customers.retrieve", customer)
            found = await self._stripe.call(
                "v1.invoices.create",
                key=step_key(row, "create"),
                customer=customer,
                currency=row.currency,
                auto_advance=False,
                pending_invoice_items_behavior="exclude",
                metadata={OURS: row.id},
                description=f"{name_of(Span(row.period_start, row.period_end))}, {row.kind}",
                **({"automatic_tax": {"enabled": True}} if billing.tax.stripe_tax else {}),
                **collecting(person),
            )
        if row.stripe_id != found["id"]:
            async with self._database.writing() as connection:
                await invoices.update(connection, row.id, stripe_id=found["id"])
        return found

    async def close(self, row: Any, billing: Billing) -> dict[str, Any]:
        """Bring an invoice whose lines are written to where it is paid, or sent, and return it as Stripe has it.

        Raises Differs and StripeFailure.
        """
        there = await self.begin(row, billing)
        if there["status"] == DRAFT:
            async with self._database.reading() as connection:
                lines = await invoices.lines(connection, row.id)
            there = await self._fill(row, there, lines)
            if row.accepted_why is None:
                must_agree(there, await self._stripe.every("v1.invoices.line_items.list", there["id"]), lines, row.name)
            there = await self._stripe.call(
                "v1.invoices.finalize_invoice", there["id"], key=step_key(row, "finalize"), auto_advance=False
            )
        if there["status"] == "open":
            there = await self._collect(row, there)
        return there

    async def _collect(self, row: Any, there: dict[str, Any]) -> dict[str, Any]:
        """Charge a customer who can be charged, and send the invoice to the others."""
        if there["collection_method"] == "send_invoice":
            return await self._stripe.call("v1.invoices.send_invoice", there["id"], key=step_key(row, "send"))
        try:
            return await self._stripe.call("v1.invoices.pay", there["id"], key=step_key(row, "pay"))
        except StripeFailure as failure:
            if failure.outcome is not Outcome.REFUSED:
                raise
            # A card that is refused; or it is paid by now. Either way it is open no longer, or stays so.
            there = await self._stripe.call("v1.invoices.retrieve", there["id"])
            return there | {"edgeproxy_refused": failure.message}

    async def void(self, row: Any) -> dict[str, Any] | None:
        """Take an invoice back at Stripe; None where nothing is left of it there. Raises StripeFailure."""
        if row.stripe_id is None:
            return None
        try:
            there = await self._stripe.call("v1.invoices.retrieve", row.stripe_id)
        except StripeFailure as failure:
            if failure.code == "resource_missing":  # It was deleted before.
                return None
            raise
        if there["status"] == DRAFT:
            await self._stripe.call("v1.invoices.delete", row.stripe_id, key=step_key(row, "delete"))
            return None
        if there["status"] in ("open", "uncollectible"):
            return await self._stripe.call("v1.invoices.void_invoice", row.stripe_id, key=step_key(row, "void"))
        return there

    async def credit(self, note: Any, row: Any) -> dict[str, Any]:
        """Make a credit note, and return it. Raises StripeFailure."""
        notes = await self._stripe.every("v1.credit_notes.list", invoice=row.stripe_id)
        for there in notes:
            if (there.get("metadata") or {}).get("edgeproxy_credit_note") == note.id:
                return there
        paid = row.state == invoices.PAID
        return await self._stripe.call(
            "v1.credit_notes.create",
            key=f"{note.id}_{note.tries}",
            invoice=row.stripe_id,
            amount=note.amount,
            memo=note.why,
            metadata={"edgeproxy_credit_note": note.id},
            **({"refund_amount": note.amount} if paid else {}),
        )

    async def _find(self, row: Any, customer: str) -> dict[str, Any] | None:
        """The invoice at Stripe that is ours; None where there is none."""
        if row.stripe_id is not None:
            return await self._stripe.call("v1.invoices.retrieve", row.stripe_id)
        for there in await self._stripe.every("v1.invoices.list", customer=customer):
            if (there.get("metadata") or {}).get(OURS) == row.id:
                return there
        return None

    async def _fill(self, row: Any, there: dict[str, Any], lines: Sequence[Line]) -> dict[str, Any]:
        """Make the items of an invoice that are not there yet, and return it as it is then: by one call, as so many may
        be made of an endpoint.

        Where Stripe computes the tax it is told of each item that tax comes on top, which only a call of its own can.
        """
        found = []
        if there["lines"]["data"]:
            # Not the items behind them: nothing says that those have the metadata of what is added as a line.
            found = await self._stripe.every("v1.invoices.line_items.list", there["id"])
        made = {(one.get("metadata") or {}).get(POSITION) for one in found}
        missing: list[dict[str, Any]] = [
            {
                "amount": line.amount,
                "description": invoices.described(line),
                "period": {"start": line.span.start, "end": line.span.end},
                "metadata": {POSITION: str(position)},
            }
            for position, line in enumerate(lines)
            if str(position) not in made
        ]
        if (there.get("automatic_tax") or {}).get("enabled"):
            about = {"customer": there["customer"], "invoice": there["id"], "currency": row.currency}
            for line in missing:
                key = step_key(row, f"item{line['metadata'][POSITION]}")
                await self._stripe.call("v1.invoice_items.create", key=key, **about, **line, tax_behavior="exclusive")
            return await self._stripe.call("v1.invoices.retrieve", there["id"])
        if not missing:
            return there
        return await self._stripe.call("v1.invoices.add_lines", there["id"], key=step_key(row, "lines"), lines=missing)


def step_key(row: Any, step: str) -> str:
    """The Idempotency-Key of a step. Stripe answers it the same again for 24 hours, also that it failed: once it did,
    and there is nothing to find, it is another one."""
    again = f"_{row.tries}" if row.tries else ""
    return f"{row.id}_{row.customer}_{row.period}_{row.kind}_{step}{again}"


def collecting(person: dict[str, Any]) -> dict[str, Any]:
    """How a customer pays: what they gave to be charged by, or by themselves."""
    settings = person.get("invoice_settings") or {}
    if settings.get("default_payment_method") or person.get("default_source"):
        return {"collection_method": "charge_automatically"}
    return {"collection_method": "send_invoice", "days_until_due": DAYS_UNTIL_DUE}


def must_agree(there: dict[str, Any], items: Sequence[dict[str, Any]], lines: Sequence[Line], name: str) -> None:
    """Raise Differs unless Stripe's draft of a customer, by name, is made of our lines, to the cent."""
    theirs, ours = Counter(item["amount"] for item in items), Counter(line.amount for line in lines)
    due = sum(line.amount for line in lines)
    if theirs != ours:
        surplus, lack = sorted((theirs - ours).elements()), sorted((ours - theirs).elements())
        why = f"Stripe's draft differs from ours: beside the same lines it has {surplus} cents, and not {lack}"
        raise Differs(why, compared(name, items, lines))
    if there["subtotal"] != due:
        why = f"Stripe's draft has a subtotal of {there['subtotal']} cents, and ours {due}"
        raise Differs(why, [Row(name, "subtotal", due, there["subtotal"])])
    tax = (there.get("automatic_tax") or {}).get("enabled")
    if tax and there["automatic_tax"]["status"] != "complete":
        raise Differs(f"{invoices.NO_TAX}: {there['automatic_tax']['status']}")
    wanted = due + (sum(one["amount"] for one in there.get("total_taxes") or ()) if tax else 0)
    if there["total"] != wanted:
        why = f"Stripe's draft has a total of {there['total']} cents, and ours {wanted}"
        raise Differs(why, [Row(name, "total", wanted, there["total"])])


def compared(name: str, items: Sequence[dict[str, Any]], lines: Sequence[Line]) -> list[Row]:
    """The cents of each line of a customer's invoice in both books; what has no line of ours is of no meter."""
    amounts: dict[str, int] = {}
    for item in items:
        position = (item.get("metadata") or {}).get(POSITION, "")
        amounts[position] = amounts.get(position, 0) + item["amount"]
    rows = [
        Row(name, line.meter or line.kind, line.amount, amounts.pop(str(position), 0))
        for position, line in enumerate(lines)
    ]
    return [*rows, *(Row(name, "another line", 0, cents) for cents in amounts.values())]
