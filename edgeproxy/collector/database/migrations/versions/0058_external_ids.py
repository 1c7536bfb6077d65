"""External ids in the order of their characters, by which customers are searched for; SQLite has that order anyway."""

from alembic import op

revision = "0058"
down_revision = "0057"


def upgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        op.execute('CREATE INDEX customers_external_id_c ON customers (external_id COLLATE "C")')


def downgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        op.drop_index("customers_external_id_c")
