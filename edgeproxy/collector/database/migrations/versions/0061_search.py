"""Names and external ids in which customers are searched for: on PostgreSQL by their trigrams.

For a million customers that takes PostgreSQL a minute or more.
"""

from alembic import op

revision = "0061"
down_revision = "0060"

# As search_text.py has it: only then is the index used.
TEXT = "coalesce(display_name, name) || '\n' || coalesce(CASE WHEN external_id_sealed IS NULL THEN external_id END, '')"


def upgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        op.execute(f"CREATE INDEX customers_searched ON customers (lower({TEXT}))")
        return
    # An extension would do the same, but its functions belong to whoever administers the server.
    op.execute("""
        CREATE FUNCTION edgeproxy_trigrams(text) RETURNS text[] LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
        DECLARE parts text[] := '{}';
        BEGIN
            FOR at IN 1..length($1) - 2 LOOP parts[at] := substr($1, at, 3); END LOOP;
            RETURN parts;
        END $$
    """)
    indexed = f'edgeproxy_trigrams(lower(({TEXT}) COLLATE "C"))'
    op.execute(f"CREATE INDEX customers_searched ON customers USING gin ({indexed}) WITH (fastupdate = off)")


def downgrade() -> None:
    op.drop_index("customers_searched")
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP FUNCTION edgeproxy_trigrams(text)")
