"""Plans, subscriptions and invoices."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"

WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
LIVE = sa.text("state <> 'canceled'")


def number(name: str, *, primary_key: bool = False) -> sa.Column[int]:
    """Return a whole number that must be there."""
    if primary_key:
        return sa.Column(name, WHOLE, primary_key=True, autoincrement=False)
    return sa.Column(name, WHOLE, nullable=False)


def words(name: str, of: str | None = None) -> sa.Column[str]:
    """Return a text that must be there; `of`: the column whose value it is."""
    return sa.Column(name, sa.Text, *([] if of is None else [sa.ForeignKey(of)]), nullable=False)


def upgrade() -> None:
    op.create_table(
        "plan_versions",
        sa.Column("version", sa.Text, primary_key=True),
        words("settings"),
        number("created_at"),
        sqlite_strict=True,
    )
    op.create_table(
        "billing_customers",
        sa.Column("customer", sa.Text, sa.ForeignKey("customers.id"), primary_key=True),
        words("stripe_id"),
        sa.Column("email_hash", sa.Text),
        sa.Column("country", sa.Text),
        sa.Column("tax_status", sa.Text),
        number("livemode"),
        sa.UniqueConstraint("stripe_id", name="billing_customers_stripe_id_key"),
        sqlite_strict=True,
    )
    op.create_table(
        "subscriptions",
        sa.Column("id", sa.Text, primary_key=True),
        words("customer", "customers.id"),
        words("plan_version", "plan_versions.version"),
        number("is_yearly"),
        words("state"),
        sa.Column("anchor", WHOLE),
        number("period_start"),
        number("period_end"),
        sa.Column("next_version", sa.Text, sa.ForeignKey("plan_versions.version")),
        sa.Column("cancel_at", WHOLE),
        words("tier_before"),
        sa.Column("stripe_id", sa.Text),
        number("created_at"),
        number("version"),
        sa.UniqueConstraint("stripe_id", name="subscriptions_stripe_id_key"),
        sqlite_strict=True,
    )
    for name, column, unique in (
        ("subscriptions_live", "customer", True),
        ("subscriptions_period_end", "period_end", False),
    ):
        op.create_index(name, "subscriptions", [column], unique=unique, sqlite_where=LIVE, postgresql_where=LIVE)
    op.create_table(
        "segments",
        sa.Column("subscription", sa.Text, sa.ForeignKey("subscriptions.id"), primary_key=True),
        sa.Column("meter", sa.Text, primary_key=True),
        number("start", primary_key=True),
        number("end"),
        words("plan_version", "plan_versions.version"),
        number("is_yearly"),
        number("period_start"),
        number("period_end"),
        number("paid_start"),
        number("paid_end"),
        sa.Column("stripe_item", sa.Text),
        sa.Column("stripe_price", sa.Text),
        sqlite_strict=True,
    )
    op.create_table(
        "invoices",
        sa.Column("id", sa.Text, primary_key=True),
        words("customer", "customers.id"),
        sa.Column("subscription", sa.Text, sa.ForeignKey("subscriptions.id")),
        words("period"),
        words("kind"),
        words("state"),
        sa.Column("stripe_id", sa.Text),
        number("subtotal"),
        number("total"),
        words("currency"),
        number("period_start"),
        number("period_end"),
        number("closes_at"),
        sa.Column("held_why", sa.Text),
        sa.Column("accepted_why", sa.Text),
        sa.Column("pdf", sa.Text),
        sa.Column("url", sa.Text),
        number("tries"),
        number("failures"),
        number("try_at"),
        sa.Column("error", sa.Text),
        number("created_at"),
        sa.UniqueConstraint("customer", "period", "kind", name="invoices_customer_period_kind_key"),
        sa.UniqueConstraint("stripe_id", name="invoices_stripe_id_key"),
        sqlite_strict=True,
    )
    op.create_index("invoices_state", "invoices", ["state", "closes_at"])
    op.create_table(
        "invoice_lines",
        sa.Column("invoice", sa.Text, sa.ForeignKey("invoices.id"), primary_key=True),
        number("position", primary_key=True),
        words("kind"),
        words("plan_version"),
        number("segment_start"),
        number("segment_end"),
        words("meter"),
        words("value"),
        number("tier"),
        number("quantity"),
        sa.Column("unit_price", sa.Text),
        number("amount"),
        number("start"),
        number("end"),
        words("text"),
        sqlite_strict=True,
    )
    op.create_table(
        "credit_notes",
        sa.Column("id", sa.Text, primary_key=True),
        words("invoice", "invoices.id"),
        number("amount"),
        words("why"),
        words("state"),
        sa.Column("stripe_id", sa.Text),
        sa.Column("error", sa.Text),
        number("tries"),
        number("created_at"),
        sa.UniqueConstraint("stripe_id", name="credit_notes_stripe_id_key"),
        sqlite_strict=True,
    )
    op.create_index("credit_notes_invoice", "credit_notes", ["invoice"])
