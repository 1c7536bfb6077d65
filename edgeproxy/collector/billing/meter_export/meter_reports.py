"""Stripe's reports on meter events that it accepted but could not count: their rows are rejected, with an alert.

A report counts all errors of some minutes and names a few of the events. The reconciliation with Stripe's sums finds
the others.
"""

from collections.abc import Iterator

from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.accounts.ids import now_ms
from edgeproxy.collector.alerts.alert import Alert, raise_once
from edgeproxy.collector.alerts.kinds import AlertKind
from edgeproxy.collector.billing.meter_export import outbox_rows
from edgeproxy.collector.billing.meter_export.outbox import RowState
from edgeproxy.collector.billing.stripe.client import StripeObject
from edgeproxy.collector.database.delivery_tables import billing_outbox

NAMED_MAX = 1000


def list_identifiers(report: StripeObject) -> Iterator[str]:
    """Yield the identifiers of the events that a report names."""
    reason = (report.get("data") or {}).get("reason") or {}
    for kind in reason.get("error_types") or ():
        for sample in kind.get("sample_errors") or ():
            name = (sample.get("request") or {}).get("identifier")
            if isinstance(name, str):
                yield name


async def apply_report(connection: AsyncConnection, report: StripeObject) -> None:
    """Reject the rows that a report names, and raise an alert."""
    now = now_ms()
    named = sorted(set(list_identifiers(report)))[:NAMED_MAX]
    summary = str((report.get("data") or {}).get("developer_message_summary") or "no summary")[:300]
    is_counted = billing_outbox.c.state.in_([RowState.ACCEPTED, RowState.UNKNOWN])
    rows = await outbox_rows.select_rows(connection, billing_outbox.c.identifier.in_(named), is_counted)
    rejected = [
        row.identifier for row in rows if await outbox_rows.change_row(connection, row, RowState.REJECTED, now, summary)
    ]
    alert = Alert(
        key=f"billing-meter-errors-{report['id']}",
        kind=AlertKind.METER_EVENTS_REJECTED,
        title=f"Stripe could not count usage: {summary}",
        details={"event": report["id"], "why": summary, "rejected": rejected},
        at=now / 1000,
    )
    await raise_once(connection, alert)
