"""The names by which people know customers who have a pseudonym, and the order of the names that people see."""

import sqlalchemy as sa
from alembic import op

revision = "0059"
down_revision = "0058"


def upgrade() -> None:
    op.add_column("customers", sa.Column("display_name", sa.Text))
    op.create_index("customers_display_name", "customers", ["display_name"], unique=True)
    collation = ' COLLATE "C"' if op.get_bind().dialect.name == "postgresql" else ""
    op.execute(f"CREATE INDEX customers_shown_name ON customers (coalesce(display_name, name){collation})")
    if collation:
        op.drop_index("customers_name_begins")


def downgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        op.execute('CREATE INDEX customers_name_begins ON customers (name COLLATE "C")')
    op.drop_index("customers_shown_name")
    op.drop_index("customers_display_name")
    op.drop_column("customers", "display_name")
