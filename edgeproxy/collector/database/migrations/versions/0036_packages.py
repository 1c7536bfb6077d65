"""Invoice lines of packages of units."""

import sqlalchemy as sa
from alembic import op
from alembic.util.exc import CommandError

revision = "0036"
down_revision = "0035"

WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.add_column("invoice_lines", sa.Column("package", WHOLE, nullable=False, server_default="1"))


def downgrade() -> None:
    packaged = "SELECT count(*) FROM invoice_lines WHERE package <> 1"
    if op.get_bind().exec_driver_sql(packaged).scalar_one():
        raise CommandError("invoices have lines of packages, which the version before would read as single units")
    op.drop_column("invoice_lines", "package")
