"""Row-level security on PostgreSQL: a second barrier between customers, behind the WHERE clauses of the handlers.

A transaction that serves one customer runs as the role `edgeproxy_customer`, with the customer's name in the setting
`edgeproxy.customer` (`serving`). That role owns no table and has only the rights listed here. Policies show it only the
rows of that customer, or no rows without a name. All other work runs as the user of the database URL, who sees every
row as a member of `edgeproxy_collector`. Security is forced, so it also applies to the owner of the tables. SQLite has
no row-level security.

Policies are not part of a migration. Each start compares them with the marks of the tables and updates them, because an
administrator may create the roles later, or a dump may be restored without rights. A migration that changes a column
used in a policy drops that policy, and the next start creates it again.
"""

import hashlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, suppress
from contextvars import ContextVar
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.database.marks import (
    NO_RIGHTS,
    READ,
    SERVED_NAME,
    SETTING,
    Owner,
    TableMark,
)
from edgeproxy.collector.database.personal_data import TABLES

CUSTOMER_ROLE = "edgeproxy_customer"
"""The role of transactions that serve one customer."""
COLLECTOR_ROLE = "edgeproxy_collector"
"""The role whose members see the rows of all customers. The role itself has no rights to tables."""
LOCK = 7305_0004
"""PostgreSQL's advisory lock for changing policies and rights."""
LOCK_TIMEOUT = "5s"
"""Longest wait for a table that is in use; later users of the table wait as well."""

ID = f"(SELECT c.id FROM customers c WHERE c.name = {SERVED_NAME})"
"""The id of the served customer. A statement evaluates it once."""


OWN_SERIES = "edgeproxy_own_series"
"""The function that returns the ids of the served customer's series, with the rights of its caller."""
_OWN_SERIES = (
    f"CREATE OR REPLACE FUNCTION {OWN_SERIES}() RETURNS bigint[] STABLE PARALLEL SAFE COST 1 "
    f"RETURN ARRAY(SELECT s.id FROM series s WHERE s.customer = {SERVED_NAME}); "
    f"GRANT EXECUTE ON FUNCTION {OWN_SERIES}() TO {CUSTOMER_ROLE};"
)
_IS_OWN_SERIES = f"IN (SELECT unnest((SELECT {OWN_SERIES}())))"


class CustomerRows(NamedTuple):
    """A table with rows of customers."""

    own: str
    """The SQL condition that a row belongs to the served customer."""
    rights: tuple[str, ...]
    """Rights of a transaction that serves a customer to that customer's rows."""


def _build_condition(table: str, owner: Owner, prefix: str = "") -> str:
    """Build the condition that a row belongs to the served customer.

    EXISTS lets the planner choose between an index lookup in the parent and a hash of all rows of the customer. Of the
    sums of a series it expects one and reads a month of them, so that it would look the series up for each. A hash of
    the customer's series is made once a statement. It is made of a function's result: the planner would add the cost
    of a query to each look-up, and would not hash very many series. The inner SELECT keeps it from planning by the
    result.
    """
    if owner.by in ("name", "id"):
        return f"{prefix}{owner.column} = {SERVED_NAME if owner.by == 'name' else ID}"
    if owner.by == "series":
        return f"{prefix}{owner.column} {_IS_OWN_SERIES}"
    parent = TABLES[owner.by].owner
    assert parent is not None  # Rows of the table have an owner by this table.
    of_parent = _build_condition(owner.by, parent, "p.")
    return f"EXISTS (SELECT FROM {owner.by} p WHERE p.{owner.key} = {table}.{owner.column} AND {of_parent})"


def _build_rows(table: str, mark: TableMark) -> CustomerRows:
    conditions = [mark.condition or mark.owner, mark.narrowed]
    built = (
        _build_condition(table, condition) if isinstance(condition, Owner) else condition for condition in conditions
    )
    return CustomerRows(" AND ".join(one for one in built if one), mark.rights)


PROTECTED: Mapping[str, CustomerRows] = {
    name: _build_rows(name, mark) for name, mark in TABLES.items() if mark.content is None
}
"""The tables with rows of customers."""
SHARED = {name: mark.content for name, mark in TABLES.items() if mark.content is not None and mark.rights}
"""The tables without customers that transactions serving a customer may read, and their content."""
CLOSED = {
    "alembic_version": "the revision of the tables",
    **{name: mark.content for name, mark in TABLES.items() if mark.content is not None and not mark.rights},
}
"""The tables that transactions serving a customer may not use, and their content."""

_SERVED: ContextVar[str | None] = ContextVar("the customer who is served", default=None)
_IS_SERVING = "edgeproxy_serves_customer"
"""The option of a connection whose transaction serves a customer."""

_SERVE = f"SELECT set_config('{SETTING}', $1, true), set_config('role', '{CUSTOMER_ROLE}', true)"
_LEAVE = "SELECT set_config('role', 'none', true)"
_RETURN = f"SELECT set_config('role', '{CUSTOMER_ROLE}', true)"


@contextmanager
def serving(customer: str | None) -> Iterator[None]:
    """Restrict all transactions that begin within the block to this customer; None: no restriction."""
    token = _SERVED.set(customer)
    try:
        yield
    finally:
        _SERVED.reset(token)


def served_customer() -> str | None:
    """Return the name of the customer that transactions serve now, or None if they are not restricted."""
    return _SERVED.get()


async def serve(connection: AsyncConnection, customer: str) -> None:
    """Restrict the transaction to this customer's rows until it ends. PostgreSQL only."""
    await connection.exec_driver_sql(_SERVE, (customer,))
    await connection.execution_options(**{_IS_SERVING: True})


@asynccontextmanager
async def across_customers(connection: AsyncConnection) -> AsyncIterator[None]:
    """Run statements with the rights of the collector inside a transaction that serves a customer.

    Use it for data that has no customer but is written with a customer's change, for example the audit log: all
    customers share its hash chain, so its last entry may belong to any of them. The result must not depend on the
    caller's rights.
    """
    sync = connection.sync_connection
    if sync is None or not sync.get_execution_options().get(_IS_SERVING):
        yield
        return
    await connection.exec_driver_sql(_LEAVE)
    await connection.execution_options(**{_IS_SERVING: False})
    try:
        yield
    except Exception:
        # The caller may catch the error and continue the transaction. If the transaction has failed, no statement
        # works.
        with suppress(sa.exc.SQLAlchemyError):
            await _serve_again(connection)
        raise
    await _serve_again(connection)


async def _serve_again(connection: AsyncConnection) -> None:
    await connection.execution_options(**{_IS_SERVING: True})
    await connection.exec_driver_sql(_RETURN)


# ---- policies and rights


class HiddenRowsError(Exception):
    """The database user sees no rows of the protected tables. The message is a sentence that says what to do."""


class Login(NamedTuple):
    """The database user and its rights through both roles."""

    name: str
    has_roles: bool
    """True if both roles exist."""
    sees_all: bool
    """True if policies show it all rows: an inheriting member of COLLECTOR_ROLE, BYPASSRLS or a superuser."""
    may_serve: bool
    """True if it may switch to CUSTOMER_ROLE."""

    def hidden_by(self, states: Mapping[str, "TableState"]) -> bool:
        """Return True if active policies hide all rows from the user."""
        return not self.sees_all and any(state.is_enabled for state in states.values())

    @property
    def is_complete(self) -> bool:
        """True if this user can work with active policies."""
        return self.has_roles and self.sees_all and self.may_serve


_LOGIN = sa.text(f"""
    SELECT session_user AS name, count(*) = 2 AS has_roles,
        (SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = session_user) AS is_exempt,
        bool_or(rolname = '{COLLECTOR_ROLE}' AND pg_has_role(session_user, oid, 'USAGE')) AS sees_all,
        bool_or(rolname = '{CUSTOMER_ROLE}' AND pg_has_role(session_user, oid,
            CASE WHEN current_setting('server_version_num')::int < 160000 THEN 'MEMBER' ELSE 'SET' END)) AS may_serve
    FROM pg_roles WHERE rolname IN ('{COLLECTOR_ROLE}', '{CUSTOMER_ROLE}')
""")
_TABLES = f"""
    SELECT relname, relrowsecurity, relforcerowsecurity,
        ARRAY(SELECT polname || ' ' || coalesce(obj_description(oid, 'pg_policy'), '')
            FROM pg_policy WHERE polrelid = pg_class.oid ORDER BY 1) AS policies,
        CASE WHEN EXISTS (SELECT FROM pg_roles WHERE rolname = '{CUSTOMER_ROLE}') THEN
            ARRAY(SELECT one FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS one
                WHERE has_table_privilege('{CUSTOMER_ROLE}', pg_class.oid, one)) END AS rights
    FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
    WHERE nspname = current_schema() AND relkind IN ('r', 'p') AND NOT relispartition
"""
HINT = "have an administrator run what `edgeproxy database rights` prints"
_NO_RIGHT = "42501"
_LOCKED = "55P03"

Begin = Callable[[], AbstractAsyncContextManager[AsyncConnection]]
"""A function that begins a transaction."""


class TableState(NamedTuple):
    """The state of row-level security on a table."""

    is_enabled: bool
    is_forced: bool
    policies: tuple[str, ...]
    """The name of each policy with its comment."""
    rights: tuple[str, ...]
    """Rights of CUSTOMER_ROLE."""


def expected_state(table: str) -> TableState:
    """Return the state that a table should have."""
    if (rows := PROTECTED.get(table)) is not None:
        policies = (f"collector_rows {_digest('true')}", f"customer_rows {_digest(rows.own)}")
        return TableState(True, True, policies, rows.rights)
    return TableState(False, False, (), READ if table in SHARED else NO_RIGHTS)


async def fetch_states(connection: AsyncConnection) -> dict[str, TableState]:
    """Return the state of each of our tables. Partitions are left out, since only their owner has rights to them."""
    rows = await connection.exec_driver_sql(_TABLES)
    return {
        row.relname: TableState(
            row.relrowsecurity, row.relforcerowsecurity, tuple(row.policies), tuple(row.rights or ())
        )
        for row in rows
        if row.relname in PROTECTED or row.relname in SHARED or row.relname in CLOSED
    }


async def fetch_login(connection: AsyncConnection) -> Login:
    """Return the database user and its rights."""
    row = (await connection.execute(_LOGIN)).one()
    return Login(row.name, row.has_roles, bool(row.is_exempt or row.sees_all), bool(row.may_serve))


async def find_gap(connection: AsyncConnection) -> str | None:
    """Return a sentence that says why row-level security does not restrict customers, or None if it does."""
    return _describe_gap(await fetch_login(connection), await fetch_states(connection))


def _describe_gap(login: Login, states: Mapping[str, TableState]) -> str | None:
    if login.hidden_by(states):
        return f"row-level security shows the user {login.name} no rows, as it is no member of {COLLECTOR_ROLE}: {HINT}"
    if not login.is_complete:
        return (
            f"the user {login.name} is no member of the roles {COLLECTOR_ROLE} and {CUSTOMER_ROLE}, "
            f"and may not make them: {HINT}"
        )
    missing = PROTECTED.keys() - states.keys()
    wrong = sorted({*missing, *(name for name, state in states.items() if state != expected_state(name))})
    return f"policies or rights of tables are not as they should be: {', '.join(wrong)}" if wrong else None


async def must_see_rows(connection: AsyncConnection) -> str | None:
    """Return the gap (`find_gap`). Raises HiddenRowsError if policies hide all rows: the ledger would look empty."""
    login, states = await fetch_login(connection), await fetch_states(connection)
    gap = _describe_gap(login, states)
    if login.hidden_by(states):
        raise HiddenRowsError(gap)
    return gap


async def enforce(begin: Begin) -> str | None:
    """Bring roles, policies and rights up to date as far as the user may. Return the gap that remains (`find_gap`).

    Each table is changed in its own transaction: locking all tables at once could deadlock with other users. Raises
    HiddenRowsError.
    """
    async with begin() as connection:
        await lock_rights(connection)
        if not (login := await fetch_login(connection)).is_complete:
            await _try_statement(connection, roles_sql(login.name))
        if await must_see_rows(connection) is None:
            return None
        is_complete = (await fetch_login(connection)).is_complete
        states = await fetch_states(connection)
    for table, state in states.items():
        if is_complete and state != expected_state(table):
            async with begin() as connection:
                await lock_rights(connection)
                await connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
                if not await _try_statement(connection, _table_sql(table)):
                    break  # The other tables would take as long, and batches would wait meanwhile.
    async with begin() as connection:
        return await find_gap(connection)


async def lock_rights(connection: AsyncConnection) -> None:
    """Lock policies and rights against changes by other sessions until the transaction ends."""
    await connection.execute(sa.select(sa.func.pg_advisory_xact_lock(LOCK)))


async def _try_statement(connection: AsyncConnection, statement: str) -> bool:
    """Run a statement. Return False if the user lacks the right or a table is in use."""
    try:
        async with connection.begin_nested():
            await connection.exec_driver_sql(statement)
    except sa.exc.DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) not in (_NO_RIGHT, _LOCKED):
            raise
        return False
    return True


def roles_sql(login: str) -> str:
    """Return the statement that creates the missing roles and makes a user their member.

    Roles belong to the whole server: another of its databases may have created them, or may do so at this moment.
    """
    create = "\n".join(
        f"    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{role}') THEN\n"
        f"        BEGIN CREATE ROLE {role} NOLOGIN;\n"
        "        EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;\n"
        "        END;\n"
        "    END IF;"
        for role in (COLLECTOR_ROLE, CUSTOMER_ROLE)
    )
    return f"DO $do$ BEGIN\n{create}\n    GRANT {COLLECTOR_ROLE}, {CUSTOMER_ROLE} TO {quote_name(login)};\nEND $do$;"


def _table_sql(table: str) -> str:
    """Return the statement that sets the policies and rights of a table."""
    rows, state = PROTECTED.get(table), expected_state(table)
    lines = [
        f"DROP POLICY IF EXISTS collector_rows ON {table};",
        f"DROP POLICY IF EXISTS customer_rows ON {table};",
        f"REVOKE ALL ON {table} FROM {CUSTOMER_ROLE};",
    ]
    if rows is not None:
        if _IS_OWN_SERIES in rows.own:
            lines.append(_OWN_SERIES)
        lines += [
            f"CREATE POLICY collector_rows ON {table} TO {COLLECTOR_ROLE} USING (true);",
            f"COMMENT ON POLICY collector_rows ON {table} IS '{_digest('true')}';",
            f"CREATE POLICY customer_rows ON {table} TO {CUSTOMER_ROLE} USING ({rows.own});",
            f"COMMENT ON POLICY customer_rows ON {table} IS '{_digest(rows.own)}';",
            f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;",
        ]
    if state.rights:
        lines.append(f"GRANT {', '.join(state.rights)} ON {table} TO {CUSTOMER_ROLE};")
    if "INSERT" in state.rights:
        lines.append(_SEQUENCES.format(table=table))
    return f"DO $do$ BEGIN {_SCHEMA} {' '.join(lines)} END $do$;"


_SCHEMA = (
    f"IF NOT has_schema_privilege('{CUSTOMER_ROLE}', current_schema(), 'USAGE') THEN "
    f"EXECUTE format('GRANT USAGE ON SCHEMA %I TO {CUSTOMER_ROLE}', current_schema()); END IF;"
)
_SEQUENCES = (
    "EXECUTE (SELECT coalesce(string_agg(format('GRANT USAGE ON SEQUENCE %s TO " + CUSTOMER_ROLE + "', s.seq), ';'), "
    "'SELECT 1') FROM (SELECT pg_get_serial_sequence('{table}', attname) AS seq FROM pg_attribute "
    "WHERE attrelid = '{table}'::regclass AND attnum > 0 AND NOT attisdropped) s WHERE s.seq IS NOT NULL);"
)


def _digest(condition: str) -> str:
    """Return the digest that a policy's comment holds, to recognize the condition of an existing policy.

    It covers the text of a function in the condition, so that a change of that reaches existing databases.
    """
    text = condition + _OWN_SERIES if _IS_OWN_SERIES in condition else condition
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def quote_name(name: str) -> str:
    """Return a name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'
