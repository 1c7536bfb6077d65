"""The state up to which invoices and credit notes are in the journal, so that what is not is found at once."""

import sqlalchemy as sa
from alembic import op

revision = "0039"
down_revision = "0038"

STATES = {"invoices": "('open', 'paid', 'uncollectible', 'void')", "credit_notes": "('made', 'void')"}


def upgrade() -> None:
    for table, states in STATES.items():
        op.add_column(table, sa.Column("booked", sa.Text, nullable=False, server_default=""))
        unbooked = sa.text(f"{table}.booked <> {table}.state AND {table}.state IN {states}")
        op.create_index(f"{table}_unbooked", table, ["id"], sqlite_where=unbooked, postgresql_where=unbooked)


def downgrade() -> None:
    for table in STATES:
        op.drop_index(f"{table}_unbooked", table)
        op.drop_column(table, "booked")
