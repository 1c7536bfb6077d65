"""Customers are found by parts of the name that a person wrote, which is in the metadata."""

from alembic import op

from edgeproxy.collector.database.search_text import SEARCHED, SEARCHED_SQLITE, TRIGRAMS

revision = "0006"
down_revision = "0005"

INDEX = "customers_searched"
TEXT_BEFORE = (
    "coalesce(display_name, name) || '\n' || coalesce(CASE WHEN external_id_sealed IS NULL THEN external_id END, '')"
)


def upgrade() -> None:
    _replace_index(SEARCHED_SQLITE, SEARCHED)


def downgrade() -> None:
    _replace_index(f"lower({TEXT_BEFORE})", f'lower(({TEXT_BEFORE}) COLLATE "C")')


def _replace_index(sqlite: str, postgresql: str) -> None:
    is_sqlite = op.get_bind().dialect.name == "sqlite"
    searched = f"({sqlite})" if is_sqlite else f"USING gin ({TRIGRAMS}({postgresql})) WITH (fastupdate = off)"
    # No `op.execute`: it would read the colons of a pattern as parameters.
    for statement in (f"DROP INDEX {INDEX}", f"CREATE INDEX {INDEX} ON customers {searched}"):
        op.get_bind().exec_driver_sql(statement)
