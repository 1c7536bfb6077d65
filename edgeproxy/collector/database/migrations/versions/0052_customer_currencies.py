"""The currency in which each customer is charged: US dollars for those who were charged, have credits, or have or had a
plan with prices.
"""

import sqlalchemy as sa
from alembic import op
from alembic.util.exc import CommandError

revision = "0052"
down_revision = "0051"


def upgrade() -> None:
    op.add_column("customers", sa.Column("currency", sa.Text))
    has_price = " OR ".join(f"v.settings LIKE '%\"{name}\"%'" for name in ("price", "minimum"))
    is_free = " OR ".join(f"v.settings LIKE '%\"fee\"\\:0{end}%'" for end in (",", "}"))
    op.execute(
        "UPDATE customers SET currency = 'usd' WHERE id IN (SELECT customer FROM credit_transactions)"
        " OR id IN (SELECT customer FROM invoices WHERE subtotal <> 0)"
        " OR id IN (SELECT s.customer FROM subscriptions s JOIN segments g ON g.subscription = s.id"
        f" JOIN plan_versions v ON v.version = g.plan_version WHERE {has_price} OR NOT ({is_free}))"
    )


def downgrade() -> None:
    others = "SELECT count(*) FROM customers WHERE currency <> 'usd'"
    if op.get_bind().exec_driver_sql(others).scalar_one():
        raise CommandError("customers are charged in other currencies, which the version before knows nothing of")
    op.drop_column("customers", "currency")
