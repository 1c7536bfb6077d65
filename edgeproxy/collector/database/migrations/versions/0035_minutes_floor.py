"""For how long the owner of the tables keeps minutes, which the function that drops partitions goes by."""

from importlib import import_module

import sqlalchemy as sa
from alembic import op

revision = "0035"
down_revision = "0034"

WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

# As in 0029: what is in the rows of others, such as `rollup`, is not enough to drop anything.
_DROP = """
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
    SET default_tablespace = ''
    SET default_table_access_method = 'heap'
    AS $function$
DECLARE
    partition text;
    until bigint;
    kept {schema}.minutes_floor;
BEGIN
    IF month IS NULL OR NOT isfinite(month) OR extract(day FROM month) <> 1
        OR month < DATE '1970-01-01' OR month > DATE '9999-12-01' THEN
        RAISE invalid_parameter_value USING MESSAGE = format('%L is not the first day of a month', month);
    END IF;
    partition := 'ledger_' || to_char(month::timestamp, 'YYYY_MM');
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
END $function$
"""


def upgrade() -> None:
    op.create_table("minutes_floor", sa.Column("seconds", WHOLE), sqlite_strict=True)
    connection = op.get_bind()
    if connection.dialect.name == "sqlite":
        return
    schema = connection.exec_driver_sql("SELECT quote_ident(current_schema())").scalar_one()
    text = _DROP.replace("{schema}", schema)
    connection.exec_driver_sql(
        f"CREATE OR REPLACE FUNCTION {schema}.edgeproxy_drop_partition(month date) RETURNS void {text}"
    )


def downgrade() -> None:
    op.drop_table("minutes_floor")
    connection = op.get_bind()
    if connection.dialect.name == "sqlite":
        return
    earlier = import_module("edgeproxy.collector.database.migrations.versions.0029_partition_functions")
    schema = connection.exec_driver_sql("SELECT quote_ident(current_schema())").scalar_one()
    text = (earlier._HEAD + earlier._DROP).replace("{schema}", schema)
    connection.exec_driver_sql(
        f"CREATE OR REPLACE FUNCTION {schema}.edgeproxy_drop_partition(month date) RETURNS void {text}END $function$"
    )
