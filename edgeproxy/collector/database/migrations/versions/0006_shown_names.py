"""Customers are found by parts of the name that a person wrote, which is in the metadata."""

from alembic import op

from edgeproxy.collector.database.search_text import SEARCHED, SEARCHED_SQLITE, TRIGRAMS

revision = "0006"
down_revision = "0005"

INDEX, NEXT = "customers_searched", "customers_searched_next"
TEXT_BEFORE = (
    "coalesce(display_name, name) || '\n' || coalesce(CASE WHEN external_id_sealed IS NULL THEN external_id END, '')"
)


def upgrade() -> None:
    _replace_index(SEARCHED_SQLITE, SEARCHED)


def downgrade() -> None:
    _replace_index(f"lower({TEXT_BEFORE})", f'lower(({TEXT_BEFORE}) COLLATE "C")')


def _replace_index(sqlite: str, postgresql: str) -> None:
    if op.get_bind().dialect.name == "sqlite":
        statements = [f"DROP INDEX {INDEX}", f"CREATE INDEX {INDEX} ON customers ({sqlite})"]
    else:
        # In this order customers can be read while the index of a million takes half a minute. Not concurrently: that
        # would wait for the transactions that hold locks of jobs, and so for the end of collectors that still serve.
        searched = f"USING gin ({TRIGRAMS}({postgresql})) WITH (fastupdate = off)"
        statements = [
            f"CREATE INDEX {NEXT} ON customers {searched}",
            f"DROP INDEX {INDEX}",
            f"ALTER INDEX {NEXT} RENAME TO {INDEX}",
        ]
    # No `op.execute`: it would read the colons of a pattern as parameters.
    for statement in statements:
        op.get_bind().exec_driver_sql(statement)
