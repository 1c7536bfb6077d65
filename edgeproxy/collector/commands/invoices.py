"""Commands for invoices, with or without a running collector.

Each returns an exit code and a text, as the commands of database.py do.
"""

import asyncio
import time
from operator import itemgetter

import sqlalchemy as sa

from edgeproxy.base.plural import format_count
from edgeproxy.collector.accounts.customer_refs import resolve_customer
from edgeproxy.collector.billing.invoices import invoices
from edgeproxy.collector.billing.invoices.closing_preview import match_period, preview_close
from edgeproxy.collector.billing.invoices.invoices import Invoice
from edgeproxy.collector.billing.jobs.period_close import JOB, PeriodCloseJob
from edgeproxy.collector.billing.rating.money import format_amount
from edgeproxy.collector.billing.rollout import charging
from edgeproxy.collector.billing.stripe.client import Stripe, StripeConfigurationError
from edgeproxy.collector.commands.database import CommandError, CommandResult, run_on_database
from edgeproxy.collector.database.billing_tables import invoices as table
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.single_runner import try_exclusive
from edgeproxy.collector.database.unreadable_rows import parse_rows
from edgeproxy.collector.jobs.billing import build_processor
from edgeproxy.config.collector.settings import CollectorSettings

LISTED_MAX = 1000
ROUNDS = 3
"""Attempts to bring invoices to Stripe."""
ALONE_SECONDS = 30.0
"""Seconds to wait for the collector's own run."""
UNSETTLED = (invoices.DRAFT, invoices.CLOSING, invoices.HELD)


def close_invoices(settings: CollectorSettings, period: str, *, dry: bool) -> CommandResult:
    """Close the invoices of a period."""

    async def close(database: Database) -> str:
        if settings.billing is None or settings.billing.mode == "off":
            raise CommandError("nobody is charged: see mode of billing")
        async with database.reading() as connection:
            charging_state = await charging.fetch_charging(connection, settings.billing)
        if not charging_state.is_on:
            raise CommandError(f"nobody is charged: {charging_state.stopped_by or 'the configuration'} has stopped it")
        in_period = match_period(period)
        if dry:
            return await _format_invoices(database, period)
        try:
            stripe = Stripe(settings.billing.stripe)
        except StripeConfigurationError as error:
            raise CommandError(str(error)) from None
        try:
            processor = build_processor(settings, database, stripe, lambda seconds: None)
            await _close(database, PeriodCloseJob(database, stripe, lambda: settings, processor.complete), in_period)
        finally:
            await stripe.close()
        text = await _format_invoices(database, period)
        async with database.reading() as connection:
            unsettled = sa.select(table.c.id).where(in_period, table.c.state.in_(UNSETTLED)).limit(1)
            if (await connection.execute(unsettled)).first() is not None:
                raise CommandError(text)
        return text

    return run_on_database(settings, close)


async def _close(database: Database, closing: PeriodCloseJob, in_period: sa.ColumnElement[bool]) -> None:
    """Run the period close without the freeze for these invoices. Raises TimeoutError if another run does not end."""
    async with asyncio.timeout(ALONE_SECONDS) as waiting:
        while True:
            async with try_exclusive(database, JOB) as is_exclusive:
                if is_exclusive:
                    waiting.reschedule(None)
                    now = int(time.time())
                    await closing.step(now)  # It creates the invoices of completed periods.
                    ended = sa.update(table).where(
                        in_period, table.c.state == invoices.DRAFT, table.c.period_end <= now
                    )
                    async with database.writing() as connection:
                        await connection.execute(ended.values(closes_at=now, try_at=0))
                    for _ in range(ROUNDS):
                        await closing.step(time.time())
                    return
            await asyncio.sleep(0.2)


async def _format_invoices(database: Database, period: str) -> str:
    """Format a period's invoices: their number in each state, and held ones."""
    async with database.reading() as connection:
        preview = await preview_close(connection, period)
    lines = [f"{format_count(count, 'invoice')} {state}" for state, count in preview["invoices"].items()]
    lines += [
        f"held: {held_invoice['invoice']} of {held_invoice['customer']}: {held_invoice['why']}"
        for held_invoice in preview["held"]
    ]
    return "\n".join(lines) or "there is no invoice of this period"


def list_invoices(
    settings: CollectorSettings, *, customer: str | None, period: str | None, state: str | None
) -> CommandResult:
    """List the newest invoices."""

    async def list_rows(database: Database) -> str:
        async with database.reading(whole=True) as connection:
            customer_id = None if customer is None else (await resolve_customer(connection, customer)).id
            invoice_rows = await invoices.list_invoices(
                connection, None, LISTED_MAX, customer=customer_id, period=period, state=state
            )
        lines = parse_rows(table.name, invoice_rows, _format_invoice, itemgetter("id"))
        return "\n".join(lines) or "there is no such invoice"

    return run_on_database(settings, list_rows)


def _format_invoice(invoice: Invoice) -> str:
    """Return an invoice as a line, with amounts in its currency."""
    amounts = (
        *(invoice["total"], invoice["amount_due"], invoice["amount_paid"]),
        *(invoice["amount_credited"], invoice["amount_refunded"]),
    )
    total, due, paid, credited, paid_back = (format_amount(amount, invoice["currency"]) for amount in amounts)
    return (
        f"{invoice['id']}  {invoice['period']}  {invoice['kind']:6}  {invoice['state']:8}  {total:>14}  "
        f"due {due}, paid {paid}, credited {credited}, paid back {paid_back}  {invoice['customer']}"
    )
