"""The list of customers is sorted by plan, cost of the period, overdue amounts, share of the cap, and last call.

The index of tiers gets the order of characters, by which lists are sorted. A database of another order could not use
the earlier one.
"""

import sqlalchemy as sa
from alembic import op

from edgeproxy.collector.database.schema import INTEGER

revision = "0003"
down_revision = "0002"

NAMES = ("spent", "spent_at", "overdue", "cap_used", "cap_until", "last_call_on")
INDEXES = {
    "customers_spent": "coalesce(spent, -1), id",
    "customers_overdue": "overdue, id",
    "customers_cap_used": "coalesce(cap_used, -1), id",
    "customers_last_call": "coalesce(last_call_on, 0), id",
}
ENDS = "customers_cap_until"


def upgrade() -> None:
    connection = op.get_bind()
    is_sqlite = connection.dialect.name == "sqlite"
    # The baseline makes the tables of today. So a database of revision 0001 may have the columns already.
    existing = {column["name"] for column in sa.inspect(connection).get_columns("customers")}
    if "plan" not in existing:
        op.add_column("customers", sa.Column("plan", sa.Text))
    for name in NAMES:
        if name not in existing:
            has_default = name == "overdue"
            default = "0" if has_default else None
            op.add_column("customers", sa.Column(name, INTEGER, nullable=not has_default, server_default=default))
    name = "substr(plan_version, 1, instr(plan_version, '@') - 1)" if is_sqlite else "split_part(plan_version, '@', 1)"
    op.execute(
        f"UPDATE customers SET plan = (SELECT {name} FROM entitlements WHERE customer = customers.id)"
        " WHERE id IN (SELECT customer FROM entitlements)"
    )
    op.execute(
        "UPDATE customers SET last_call_on = (SELECT max(last_used_on) FROM keys WHERE customer = customers.id)"
        " WHERE id IN (SELECT customer FROM keys WHERE last_used_on IS NOT NULL)"
    )
    collation = "" if is_sqlite else ' COLLATE "C"'
    op.execute("DROP INDEX customers_tier")
    texts = {"customers_plan": f"coalesce(plan, ''){collation}, id", "customers_tier": f"tier{collation}, id"}
    for index, columns in {**INDEXES, **texts}.items():
        op.execute(f"CREATE INDEX IF NOT EXISTS {index} ON customers ({columns})")
    has_cap = sa.text("cap_until IS NOT NULL")
    op.create_index(
        ENDS, "customers", ["cap_until"], if_not_exists=True, sqlite_where=has_cap, postgresql_where=has_cap
    )


def downgrade() -> None:
    for index in (*INDEXES, "customers_plan", ENDS):
        op.execute(f"DROP INDEX {index}")
    for name in ("plan", *NAMES):
        op.drop_column("customers", name)
    op.execute("DROP INDEX customers_tier")
    op.execute("CREATE INDEX customers_tier ON customers (tier, id)")
