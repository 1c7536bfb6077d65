"""Drafts of invoices at Stripe, prepared before they close."""

from edgeproxy.collector.billing.invoices import invoices
from edgeproxy.collector.billing.meter_export import metered_segments
from edgeproxy.collector.billing.period_close.collection.collection import Collection
from edgeproxy.collector.billing.period_close.invoice_tries import InvoiceTries
from edgeproxy.collector.billing.rollout.charging import Charging
from edgeproxy.collector.billing.subscriptions.changes import PERIOD
from edgeproxy.collector.database.billing_tables import invoices as invoices_table
from edgeproxy.collector.database.database import Database
from edgeproxy.config.collector.billing import Billing


class DraftPreparation:
    """Prepares drafts at Stripe for periods that are over and not closed yet."""

    def __init__(self, database: Database, collection: Collection, tries: InvoiceTries) -> None:
        self._database = database
        self._collection = collection
        self._tries = tries

    async def prepare_drafts(self, now: float, billing: Billing, charging_state: Charging) -> bool:
        """Prepare the drafts that are due. Return whether there were any.

        Stripe finalizes its own drafts after a while, so these are adopted even if the customer is not charged.
        """
        columns = invoices_table.c
        waiting = columns.stripe_id.is_(None)
        early = columns.closes_at > now
        drafted = (columns.kind == PERIOD) & metered_segments.DRAFTED
        theirs = await self._tries.fetch_due(
            invoices.DRAFT, now, waiting, drafted, *([early] if charging_state.is_on else [])
        )
        await self._tries.run_each(
            theirs, lambda row: self._collection.prepare_draft(row, billing), now, is_charging=False
        )
        if not charging_state.is_on:
            return bool(theirs)
        rows = await self._tries.fetch_due(invoices.DRAFT, now, waiting, ~drafted, early)
        charged = [row for row in rows if charging_state.bills(row.name)]
        others = [row for row in rows if not charging_state.bills(row.name)]
        if others:  # They are checked again when they close.
            async with self._database.writing() as connection:
                for row in others:
                    await invoices.update_invoice(connection, row.id, try_at=row.closes_at)
        await self._tries.run_each(charged, lambda row: self._collection.prepare_draft(row, billing), now)
        return bool(theirs or rows)
