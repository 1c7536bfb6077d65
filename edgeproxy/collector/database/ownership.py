"""Owner and login on PostgreSQL: one role owns the tables, and the collector logs in as another role that owns nothing.

An attacker with the login can only read and write rows, like the collector. The login can neither switch off row-level
security, nor change or drop a table, nor rewrite append-only tables, for example the audit log. `edgeproxy database
migrate` runs as the owner: it creates the tables and grants the login its rights (`grant_rights`). The collector
creates and drops partitions by functions that run with the owner's rights (`0001_baseline.py`).

A login that owns the tables also works: the collector then creates and migrates them at its start.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.database.marks import SETTING as CUSTOMER_SETTING
from edgeproxy.collector.database.row_security import lock_rights, quote_name
from edgeproxy.collector.database.schema import minutes_floor

CREATE_PARTITION = "edgeproxy_create_partition"
"""The function that creates the partition of a month, given its first day."""
DROP_PARTITION = "edgeproxy_drop_partition"
"""The function that drops the partition of a month. It refuses minutes within the owner's retention."""
READ = ("SELECT",)
ADD = ("SELECT", "INSERT")
CHANGE = ("SELECT", "INSERT", "UPDATE")
ALL = ("SELECT", "INSERT", "UPDATE", "DELETE")
RIGHTS: Mapping[str, tuple[str, ...]] = {
    "alembic_version": READ,
    # Rows of these tables are only ever added.
    "audit": ADD,
    "credit_transactions": ADD,
    "credit_entries": ADD,
    "invoice_lines": ADD,
    # Retention drops whole partitions, but no partition with minutes that the owner keeps.
    "ledger": CHANGE,
    "minutes_floor": READ,
}
"""Rights of the login by table; ALL for tables not listed."""
HINT = "have the owner run `edgeproxy database migrate`"


class Ownership(NamedTuple):
    """The owner of the tables, and the login's rights to them."""

    login: str
    owner: str | None
    """The role that owns the tables, or None if there are no tables."""
    has_ownership: bool
    """True if the login has the rights of that role or, without tables, may create them."""
    powers: tuple[str, ...]
    """Surplus rights of a login without ownership, one clause each. It needs only to read and write rows."""
    missing: tuple[str, ...]
    """Tables, sequences and functions for which a login without ownership lacks a right."""
    schema: str
    """The schema of the tables."""
    settings: tuple[str, ...]
    """Settings that the server applies to each session of the login, as NAME=VALUE."""

    @property
    def obstacle(self) -> str | None:
        """A sentence that says why a collector cannot use this login, or None if it can."""
        if self.has_ownership:
            return None
        if self.owner is None:
            return f"there are no tables, and the user {self.login} may not make them: {HINT}"
        if self.missing:
            return f"the user {self.login} lacks rights to {', '.join(self.missing)} of {self.owner}: {HINT}"
        return None

    @property
    def weakness(self) -> str | None:
        """A sentence that says why the login can do more than read and write rows, or None if it cannot."""
        if self.has_ownership:
            return f"the user {self.login} owns the tables, and could switch row-level security off"
        return f"the user {self.login} {', and '.join(self.powers)}" if self.powers else None

    @property
    def altered(self) -> str | None:
        """A sentence that says why row-level security may fail in the login's sessions, or None if it works.

        The login can alter its own settings. They remain after a change of its password.
        """
        settings = [setting for setting in self.settings if _is_decisive(setting, self.schema)]
        if not settings:
            return None
        return (
            f"sessions of the user {self.login} begin with {', '.join(settings)}, which may undo row-level security: "
            f"have an administrator run ALTER ROLE {quote_name(self.login)} RESET ALL"
        )


def _is_decisive(setting: str, schema: str) -> bool:
    """Return True if a setting changes the role, the policies or the tables that a session uses."""
    name, _, value = setting.partition("=")
    if name != "search_path":
        return name in DECISIVE
    return [part for each in value.split(",") if (part := each.strip().strip('"')) != "$user"] != [schema]


DECISIVE = frozenset(
    (
        *("role", "session_authorization", "row_security", CUSTOMER_SETTING, "session_replication_role"),
        *("local_preload_libraries", "session_preload_libraries"),
    )
)
"""Settings that make sessions work differently than the collector expects. Some values of `search_path` do so too."""

_SCHEMA = "current_schema()::regnamespace"
_OWNERSHIP = sa.text(f"""
    SELECT session_user AS login, pg_get_userbyid(tables.relowner) AS owner,
        CASE WHEN tables.oid IS NULL THEN has_schema_privilege(session_user, current_schema(), 'CREATE')
            ELSE pg_has_role(session_user, tables.relowner, 'USAGE') END AS has_ownership,
        has_schema_privilege(session_user, current_schema(), 'CREATE') AS may_create,
        rolcreaterole AND current_setting('server_version_num')::int < 160000 AS may_join_roles,
        ARRAY(SELECT DISTINCT pg_get_userbyid(owner)::text FROM (
                SELECT nspowner AS owner FROM pg_namespace WHERE oid = {_SCHEMA}
                UNION SELECT datdba FROM pg_database WHERE datname = current_database()
                UNION SELECT relowner FROM pg_class WHERE relnamespace = {_SCHEMA}
                UNION SELECT proowner FROM pg_proc WHERE pronamespace = {_SCHEMA}
            ) owners WHERE pg_has_role(session_user, owner, 'MEMBER') ORDER BY 1) AS memberships,
        current_schema()::text AS schema,
        ARRAY(SELECT setting FROM pg_db_role_setting, unnest(setconfig) setting
            WHERE setrole IN (0, pg_roles.oid)
                AND setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
            ORDER BY 1) AS settings
    FROM pg_roles LEFT JOIN pg_class tables ON tables.oid = to_regclass('alembic_version')
    WHERE rolname = session_user
""")
_PRIVILEGES = ("SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER")
_TABLES = f"""
    SELECT relname, ARRAY(SELECT one FROM unnest(ARRAY{list(_PRIVILEGES)}) AS one
        WHERE has_table_privilege(session_user, pg_class.oid, one)) AS rights
    FROM pg_class WHERE relnamespace = {_SCHEMA} AND relkind IN ('r', 'p') AND NOT relispartition ORDER BY 1
"""
_UNUSABLE = f"""
    SELECT relname::text FROM pg_class WHERE relnamespace = {_SCHEMA} AND relkind = 'S'
        AND NOT has_sequence_privilege(session_user, oid, 'USAGE')
    UNION SELECT name FROM unnest(ARRAY{[CREATE_PARTITION, DROP_PARTITION]}) AS name
        WHERE NOT coalesce(has_function_privilege(session_user, to_regprocedure(name || '(date)'), 'EXECUTE'), false)
"""


async def fetch_ownership(connection: AsyncConnection) -> Ownership:
    """Return the owner of the tables and the rights of the database user."""
    row = (await connection.execute(_OWNERSHIP)).one()
    settings = tuple(row.settings)
    if row.has_ownership or row.owner is None:
        return Ownership(row.login, row.owner, bool(row.has_ownership), (), (), row.schema, settings)
    powers = [f"is a member of {role}, which owns tables, functions, schema or database" for role in row.memberships]
    if row.may_create:
        powers.append("may create tables and functions")
    if row.may_join_roles:
        powers.append("may make itself a member of the owner by CREATEROLE")
    missing = list((await connection.exec_driver_sql(_UNUSABLE)).scalars())
    for table in await connection.exec_driver_sql(_TABLES):
        needed = RIGHTS.get(table.relname, ALL)
        if surplus := [right for right in table.rights if right not in needed]:
            powers.append(f"has the rights {', '.join(surplus)} to {table.relname}")
        if not set(needed) <= set(table.rights):
            missing.append(table.relname)
    return Ownership(row.login, row.owner, False, tuple(powers), tuple(missing), row.schema, settings)


async def set_minutes_floor(connection: AsyncConnection, seconds: float | None) -> None:
    """Set the least retention of minutes in seconds, independently of the login; None: keep minutes for ever.

    The owner of the tables calls it in a transaction.
    """
    await connection.execute(sa.delete(minutes_floor))
    await connection.execute(sa.insert(minutes_floor), [{"seconds": None if seconds is None else int(seconds)}])


async def grant_rights(connection: AsyncConnection, login: str) -> None:
    """Grant a login the rights that the collector needs, and revoke all others.

    The owner of the tables calls it in a transaction.
    """
    await lock_rights(connection)  # PostgreSQL refuses one of two simultaneous changes of an object's rights.
    tables = (await connection.exec_driver_sql(_TABLES)).scalars().all()
    schema = (await connection.exec_driver_sql("SELECT quote_ident(current_schema())")).scalar_one()
    for statement in _list_grants(schema, quote_name(login), tables):
        await connection.exec_driver_sql(statement)


def _list_grants(schema: str, login: str, tables: Iterable[str]) -> Iterator[str]:
    """List the statements that grant a login its rights. Both names are SQL identifiers."""
    yield f"REVOKE CREATE ON SCHEMA {schema} FROM PUBLIC, {login}"
    yield f"REVOKE ALL ON ALL TABLES IN SCHEMA {schema} FROM {login}"
    yield f"GRANT USAGE ON SCHEMA {schema} TO {login}"
    yield f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA {schema} TO {login}"
    for table in tables:
        yield f"GRANT {', '.join(RIGHTS.get(table, ALL))} ON {schema}.{quote_name(table)} TO {login}"
    for function in (CREATE_PARTITION, DROP_PARTITION):
        yield f"REVOKE ALL ON FUNCTION {schema}.{function}(date) FROM PUBLIC"
        yield f"GRANT EXECUTE ON FUNCTION {schema}.{function}(date) TO {login}"
