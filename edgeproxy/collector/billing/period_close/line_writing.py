"""The lines of invoices, written once when their freeze is over."""

from collections.abc import Callable

from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.billing.invoices import invoices, shadow_log
from edgeproxy.collector.billing.invoices.acceptance import has_total_of_stripe
from edgeproxy.collector.billing.invoices.invoice_row import InvoiceRow
from edgeproxy.collector.billing.period_close import invoice_lines, quantities
from edgeproxy.collector.billing.period_close.collection.collection import Collection
from edgeproxy.collector.billing.period_close.collection.meters import InvoiceNotReadyError
from edgeproxy.collector.billing.period_close.invoice_tries import InvoiceTries
from edgeproxy.collector.database.billing_tables import invoices as invoices_table
from edgeproxy.collector.database.database import CONNECTION_ERRORS, Database
from edgeproxy.config.collector.settings import CollectorSettings


class LineWriting:
    """Writes the lines of drafts, and computes those of voided invoices."""

    def __init__(
        self, database: Database, collection: Collection, tries: InvoiceTries, settings: Callable[[], CollectorSettings]
    ) -> None:
        self._database = database
        self._collection = collection
        self._tries = tries
        self._settings = settings

    async def write_due_lines(self, now: float) -> bool:
        """Write the lines of drafts whose freeze is over, earlier periods first."""
        rows = await self._tries.fetch_due(invoices.DRAFT, now, invoices_table.c.closes_at <= now)
        for row in sorted(rows, key=lambda row: row.period_start):
            try:
                await self._write_lines(row, now)
            except InvoiceNotReadyError as error:
                await self._tries.put_off(row, error, now)
            except CONNECTION_ERRORS:
                raise
            except Exception as error:
                await self._tries.put_off_unexpected(row, error, now)
        return bool(rows)

    async def _write_lines(self, row: InvoiceRow, now: float) -> None:
        async with self._database.writing() as connection:
            draft = await invoices.get_invoice(connection, row.id, lock=True)
            if draft.state != invoices.DRAFT:
                return
            try:
                rated = await self.compute_lines(connection, draft)
            except (quantities.QuantityTooLargeError, quantities.UsageNotStoredError) as error:
                await self._tries.hold_invoice(connection, draft, f"{invoices.NOT_RATED} {error}", now)
                return
            await self._collection.fix_usage(connection, draft, now)
            await invoices.write_lines(connection, draft.id, rated.lines, draft.currency)
            if not has_total_of_stripe(draft):  # The acceptance covered the unbillable usage, not an amount.
                await invoices.update_invoice(connection, draft.id, accepted_why=None)
            await shadow_log.record_shadow(connection, draft.id, rated.shadow, now)

    async def compute_lines(self, connection: AsyncConnection, row: InvoiceRow) -> invoice_lines.RatedInvoice:
        """Return the lines of a period's invoice from all usage known now.

        Raises QuantityTooLargeError and UsageNotStoredError.
        """
        # Otherwise usage that is rolled up meanwhile would count twice.
        await self._database.ledger.lock_rollup(connection)
        return await invoice_lines.compute_period_lines(connection, row, self._settings().meters)
