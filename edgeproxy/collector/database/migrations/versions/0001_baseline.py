"""All tables as `schema.py` and the modules beside it describe them, the first rows, and the functions of PostgreSQL.

An empty database gets the tables of today here, whatever revisions follow: `migrate.upgrade` then records the newest
revision without running the others. Later revisions change databases that exist.

Row-level security is not in here: each start compares it with `row_security.py` and brings it up to date.
"""

from collections.abc import Iterator

import sqlalchemy as sa
from alembic import op

from edgeproxy.collector.database.ownership import CREATE_PARTITION, DROP_PARTITION
from edgeproxy.collector.database.schema import metadata
from edgeproxy.collector.database.search_text import SEARCHED, SEARCHED_SQLITE, TRIGRAMS

revision = "0001"
down_revision = None

FIRST_ROWS: dict[str, dict[str, object]] = {
    "audit_head": {"seq": 0, "hash": "0" * 64},
    "billing_exporter": {"heartbeat": 0, "length": 300, "recheck_from": 0, "recheck_until": 0},
    "credit_head": {"seq": 0, "hash": "0" * 64, "at": 0, "slice": 0},
    "rollout": {"since": 0, "charging": 1, "version": 1},
    "rollup": {"hour": 0, "series": 0, "minutes_from": 0, "hours_from": 0},
}
"""The row of each table that always has one."""

# Both functions run with the owner's rights for any caller that may execute them. So they take only a date, which
# names the partition; every name in them has its schema, and they look nothing up in a schema of the caller's.
PARTITION_FUNCTION = """
CREATE FUNCTION {schema}.{name}(month date) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
    SET default_tablespace = ''
    SET default_table_access_method = 'heap'
    AS $function$
DECLARE
    partition text;
{variables}BEGIN
    IF month IS NULL OR NOT isfinite(month) OR extract(day FROM month) <> 1
        OR month < DATE '1970-01-01' OR month > DATE '9999-12-01' THEN
        RAISE invalid_parameter_value USING MESSAGE = format('%L is not the first day of a month', month);
    END IF;
    partition := 'ledger_' || to_char(month::timestamp, 'YYYY_MM');
{statements}END $function$
"""
CREATE_VARIABLES = """\
    since bigint;
    until bigint;
"""
# Half of each page is left free. A row grows a dozen times in its minute, mostly in one transaction with all others of
# its page, so that a page holds two versions of each: with 70 % filled the months became 40 % larger.
CREATE_STATEMENTS = """\
    since := extract(epoch FROM month::timestamp);
    until := extract(epoch FROM month::timestamp + INTERVAL '1 month');

    -- Attached, as making it in one step would wait for all who read the ledger, and they for it.
    EXECUTE format(
        'CREATE TABLE {schema}.%I (LIKE {schema}.ledger INCLUDING CONSTRAINTS) WITH (fillfactor = 50)', partition);
    EXECUTE format(
        'ALTER TABLE {schema}.ledger ATTACH PARTITION {schema}.%I FOR VALUES FROM (%s) TO (%s)',
        partition, since, until);
"""
DROP_VARIABLES = """\
    until bigint;
    kept {schema}.minutes_floor;
"""
# A login writes `rollup`, so that alone is not enough to drop anything: `minutes_floor` belongs to the owner.
DROP_STATEMENTS = """\
    until := extract(epoch FROM month::timestamp + INTERVAL '1 month');
    IF until > (SELECT minutes_from FROM {schema}.rollup) THEN
        RAISE invalid_parameter_value USING MESSAGE = format('the minutes of %s are kept', partition);
    END IF;
    SELECT * INTO kept FROM {schema}.minutes_floor;
    IF FOUND AND (kept.seconds IS NULL OR until > extract(epoch FROM clock_timestamp()) - kept.seconds) THEN
        RAISE invalid_parameter_value
            USING MESSAGE = format('the owner of the tables keeps the minutes of %s', partition);
    END IF;
    IF NOT EXISTS (SELECT FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
            WHERE inhparent = '{schema}.ledger'::regclass AND relname = partition) THEN
        RAISE undefined_table USING MESSAGE = format('the ledger has no partition %s', partition);
    END IF;
    EXECUTE format('DROP TABLE {schema}.%I', partition);
"""
# An extension has such a function too, but whoever administers the server would own it.
TRIGRAMS_FUNCTION = f"""
    CREATE FUNCTION {TRIGRAMS}(text) RETURNS text[] LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
        DECLARE parts text[] := '{{}}';
        BEGIN
            FOR at IN 1..length($1) - 2 LOOP parts[at] := substr($1, at, 3); END LOOP;
            RETURN parts;
        END $$
"""

# Indexes in the order of characters, by which a text is found from its beginning. SQLite has that order anyway.
SQLITE_INDEXES = (
    "CREATE INDEX keys_start ON keys (start)",
    "CREATE INDEX customers_shown_name ON customers (coalesce(display_name, name))",
    "CREATE INDEX customers_plan ON customers (coalesce(plan, ''), id)",
    "CREATE INDEX customers_tier ON customers (tier, id)",
    f"CREATE INDEX customers_searched ON customers ({SEARCHED_SQLITE})",
)
POSTGRESQL_INDEXES = (
    'CREATE INDEX keys_start ON keys (start COLLATE "C")',
    'CREATE INDEX customers_shown_name ON customers (coalesce(display_name, name) COLLATE "C")',
    """CREATE INDEX customers_plan ON customers (coalesce(plan, '') COLLATE "C", id)""",
    'CREATE INDEX customers_tier ON customers (tier COLLATE "C", id)',
    'CREATE INDEX customers_external_id_c ON customers (external_id COLLATE "C")',
    'CREATE INDEX contacts_email_c ON contacts (email COLLATE "C")',
    'CREATE INDEX contacts_domain_c ON contacts (domain COLLATE "C")',
    f"CREATE INDEX customers_searched ON customers USING gin ({TRIGRAMS}({SEARCHED})) WITH (fastupdate = off)",
)


def upgrade() -> None:
    connection = op.get_bind()
    metadata.create_all(connection)
    for table, row in FIRST_ROWS.items():
        connection.execute(sa.insert(metadata.tables[table]).values(row))
    if connection.dialect.name == "sqlite":
        statements: tuple[str, ...] = SQLITE_INDEXES
    else:
        schema = connection.exec_driver_sql("SELECT quote_ident(current_schema())").scalar_one()
        statements = (*_list_functions(schema), *POSTGRESQL_INDEXES)
    for statement in statements:
        connection.exec_driver_sql(statement)


def _list_functions(schema: str) -> Iterator[str]:
    """List the statements that make the functions of PostgreSQL; `schema` is a name as SQL has it."""
    yield TRIGRAMS_FUNCTION
    for name, variables, statements in (
        (CREATE_PARTITION, CREATE_VARIABLES, CREATE_STATEMENTS),
        (DROP_PARTITION, DROP_VARIABLES, DROP_STATEMENTS),
    ):
        text = PARTITION_FUNCTION.replace("{variables}", variables).replace("{statements}", statements)
        yield text.replace("{schema}", schema).replace("{name}", name)
        yield f"REVOKE ALL ON FUNCTION {schema}.{name}(date) FROM PUBLIC"
