"""The domains of contacts' addresses, by which customers are searched for; the job of encryption adds sealed ones."""

import sqlalchemy as sa
from alembic import op

revision = "0063"
down_revision = "0062"


def upgrade() -> None:
    op.add_column("contacts", sa.Column("domain", sa.Text))
    place = "instr(email, '@')" if op.get_bind().dialect.name == "sqlite" else "strpos(email, '@')"
    op.execute(f"UPDATE contacts SET domain = substr(email, {place} + 1) WHERE email_sealed IS NULL")
    op.create_index("contacts_domain", "contacts", ["domain"])


def downgrade() -> None:
    op.drop_index("contacts_domain")
    op.drop_column("contacts", "domain")
