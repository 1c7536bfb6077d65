"""Alerts of earlier versions get the names that their kinds have now."""

import sqlalchemy as sa
from alembic import op

revision = "0028"
down_revision = "0027"

RENAMED_KINDS = {
    "quota": "quota_reached",
    "request_cap": "request_cap_exceeded",
    "dimension": "dimension_limit_exceeded",
    "anomaly": "usage_anomaly",
    "rotation": "key_rotation_due",
    "billing_unpaid": "invoice_unpaid",
    "gap": "batches_lost",
    "quarantined": "batches_quarantined",
    "too_many_edges": "token_edge_limit_reached",
    "dead_letters": "events_rejected",
    "denials": "requests_denied",
    "certificate": "certificate_expiring",
    "billing_stuck": "subscription_period_failed",
    "invoice-held": "invoice_held",
    "billing_draft_missing": "invoice_draft_missing",
    "billing_stopped": "charging_stopped",
    "billing_export": "usage_export_failed",
    "billing_export_stopped": "usage_export_stopped",
    "billing_meter_errors": "meter_events_rejected",
    "billing_dead_letter": "webhook_event_failed",
    "billing_livemode": "webhook_mode_mismatch",
    "billing_catalog": "catalog_price_missing",
    "billing_drift": "reconciliation_mismatch",
}


def upgrade() -> None:
    alerts = sa.table("alerts", sa.column("kind", sa.Text), sa.column("customer", sa.Text))
    for before, after in RENAMED_KINDS.items():
        op.execute(sa.update(alerts).where(alerts.c.kind == before).values(kind=after))
    paused = sa.case((alerts.c.customer.is_(None), "customer_pause_failed"), else_="customer_paused")
    op.execute(sa.update(alerts).where(alerts.c.kind == "pause").values(kind=paused))
