"""Functions that make and drop partitions of the ledger with the rights of its owner, on PostgreSQL."""

from alembic import op

revision = "0029"
down_revision = "0028"

# Both run with the owner's rights for whoever may call them. So they take a date and nothing else, which names the
# partition; every name in them has its schema, and nothing is looked up in a schema of the caller's.
_HEAD = """
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
    SET default_tablespace = ''
    SET default_table_access_method = 'heap'
    AS $function$
DECLARE
    partition text;
    since bigint;
    until bigint;
BEGIN
    IF month IS NULL OR NOT isfinite(month) OR extract(day FROM month) <> 1
        OR month < DATE '1970-01-01' OR month > DATE '9999-12-01' THEN
        RAISE invalid_parameter_value USING MESSAGE = format('%L is not the first day of a month', month);
    END IF;
    partition := 'ledger_' || to_char(month::timestamp, 'YYYY_MM');
    since := extract(epoch FROM month::timestamp);
    until := extract(epoch FROM month::timestamp + INTERVAL '1 month');
"""
# Half of each page is left free. A row grows a dozen times in its minute, mostly in one transaction with all others of
# its page, so that a page holds two versions of each: with 70 % filled the months became 40 % larger.
_CREATE = """
    -- Attached, as making it in one step would wait for all who read the ledger, and they for it.
    EXECUTE format(
        'CREATE TABLE {schema}.%I (LIKE {schema}.ledger INCLUDING CONSTRAINTS) WITH (fillfactor = 50)', partition);
    EXECUTE format(
        'ALTER TABLE {schema}.ledger ATTACH PARTITION {schema}.%I FOR VALUES FROM (%s) TO (%s)',
        partition, since, until);
"""
_DROP = """
    IF until > (SELECT minutes_from FROM {schema}.rollup) THEN
        RAISE invalid_parameter_value USING MESSAGE = format('the minutes of %s are kept', partition);
    END IF;
    IF NOT EXISTS (SELECT FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
            WHERE inhparent = '{schema}.ledger'::regclass AND relname = partition) THEN
        RAISE undefined_table USING MESSAGE = format('the ledger has no partition %s', partition);
    END IF;
    EXECUTE format('DROP TABLE {schema}.%I', partition);
"""


def upgrade() -> None:
    connection = op.get_bind()
    if connection.dialect.name == "sqlite":
        return
    schema = connection.exec_driver_sql("SELECT quote_ident(current_schema())").scalar_one()
    for name, body in (("create", _CREATE), ("drop", _DROP)):
        function = f"{schema}.edgeproxy_{name}_partition(month date)"
        text = _HEAD + body.replace("{schema}", schema)
        connection.exec_driver_sql(f"CREATE FUNCTION {function} RETURNS void {text}END $function$")
        connection.exec_driver_sql(f"REVOKE ALL ON FUNCTION {function} FROM PUBLIC")
