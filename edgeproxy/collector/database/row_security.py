"""Row-level security on PostgreSQL: a second barrier between customers, behind the WHERE clauses of the handlers.

A transaction that serves one customer runs as the role `edgeproxy_customer`, with the customer's name in the setting
`edgeproxy.customer` (`serving`). That role owns no table and has only the rights listed here. Policies show it only the
rows of that customer, or no rows without a name. All other work runs as the user of the database URL, who sees every
row as a member of `edgeproxy_collector`. Security is forced, so it also applies to the owner of the tables. SQLite has
no row-level security.

Policies are not part of a migration. Each start compares them with the tables below and updates them, because an
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

CUSTOMER_ROLE = "edgeproxy_customer"
"""The role of transactions that serve one customer."""
COLLECTOR_ROLE = "edgeproxy_collector"
"""The role whose members see the rows of all customers. The role itself has no rights to tables."""
SETTING = "edgeproxy.customer"
"""The setting with the name of the served customer."""
LOCK = 7305_0004
"""PostgreSQL's advisory lock for changing policies."""
LOCK_TIMEOUT = "5s"
"""Longest wait for a table that is in use; later users of the table wait as well."""

NAME = f"current_setting('{SETTING}', true)"
"""The name of the served customer in SQL; null or empty if there is none."""
ID = f"(SELECT c.id FROM customers c WHERE c.name = {NAME})"
"""The id of the served customer. A statement evaluates it once."""

READ = ("SELECT",)
ADD = ("SELECT", "INSERT")
CHANGE = ("SELECT", "INSERT", "UPDATE")
ALL = ("SELECT", "INSERT", "UPDATE", "DELETE")
NONE: tuple[str, ...] = ()


class CustomerRows(NamedTuple):
    """A table with rows of customers."""

    own: str
    """The SQL condition that a row belongs to the served customer."""
    rights: tuple[str, ...] = NONE
    """Rights of a transaction that serves a customer to that customer's rows."""


def by_name(*rights: str) -> CustomerRows:
    """Return CustomerRows for a table with the customer's name."""
    return CustomerRows(f"customer = {NAME}", rights)


def by_id(*rights: str) -> CustomerRows:
    """Return CustomerRows for a table with the customer's id."""
    return CustomerRows(f"customer = {ID}", rights)


def by_parent(
    table: str, parent: str, column: str, key: str = "id", *, of: str = f"= {NAME}", rights: tuple[str, ...]
) -> CustomerRows:
    """Return CustomerRows whose customer is in a row of `parent`: their `column` equals its `key`.

    EXISTS lets the planner choose between an index lookup in the parent and a hash of all rows of the customer.
    """
    own = f"EXISTS (SELECT FROM {parent} p WHERE p.{key} = {table}.{column} AND p.customer {of})"
    return CustomerRows(own, rights)


PROTECTED: Mapping[str, CustomerRows] = {
    # Customers and the settings that edges have.
    "customers": CustomerRows(f"name = {NAME}", ("SELECT", "UPDATE")),
    "keys": by_id(*CHANGE),
    "limit_raises": by_id(*READ),
    "customer_moves": by_id(),
    "contacts": by_id(*ALL),
    "data_keys": by_id(*ADD),
    "privacy_requests": by_id(),
    "end_user_secrets": by_name(),
    "end_users": by_name(),
    "tokens": by_name(),
    "token_secrets": by_parent("token_secrets", "tokens", "token", "name", rights=NONE),
    "directory_outbox": CustomerRows(f"kind = 'customer' AND name = {NAME}", ADD),
    "sessions": by_name(),
    "sign_in_links": by_name(),
    "held_forms": by_name(),
    # Usage.
    "series": by_name(*READ),
    "series_dimensions": by_parent("series_dimensions", "series", "series", rights=READ),
    "dimension_values": by_name(),
    "ledger": by_parent("ledger", "series", "series", rights=READ),
    "hours": by_parent("hours", "series", "series", rights=READ),
    "days": by_parent("days", "series", "series", rights=READ),
    "dropped": by_parent("dropped", "series", "series", rights=NONE),
    "customer_errors": by_name(),
    "limit_watches": by_name(*CHANGE),
    "limit_usage": by_name(*READ),
    "events": by_name(*READ),
    "holdings": by_name(*READ),
    "past_holdings": by_name(*READ),
    "quota_passes": by_name(*READ),
    "quota_counts": by_name(),
    "entitlements": by_id(*ALL),
    "alerts": by_name(*READ),
    "alert_deliveries": by_parent("alert_deliveries", "alerts", "alert", rights=READ),
    "alert_handling": CustomerRows(
        f"{by_parent('alert_handling', 'alerts', 'alert', rights=CHANGE).own} AND side = 'customer'", CHANGE
    ),
    "alert_mutes": CustomerRows(f"customer = {NAME} AND side = 'customer'", ALL),
    "webhook_endpoints": by_id(*ALL),
    "webhook_messages": by_id(*ADD),
    "webhook_deliveries": CustomerRows(
        f"{by_parent('webhook_deliveries', 'webhook_messages', 'message', of=f'= {ID}', rights=ALL).own} AND "
        f"{by_parent('webhook_deliveries', 'webhook_endpoints', 'endpoint', of=f'= {ID}', rights=ALL).own}",
        ALL,
    ),
    "anomalies": by_name(*READ),
    "anomaly_baselines": by_name(),
    # Plans, bills and payments.
    "plan_versions": CustomerRows(f"split_part(version, '+', 2) IN ('', {NAME})", READ),
    "price_moves": CustomerRows(f"split_part(after, '+', 2) IN ('', {NAME})", READ),
    "billing_customers": by_id(*ADD),
    "billing_details": by_id(*ALL),
    "subscriptions": by_id(*CHANGE),
    "cancellations": by_id(*ALL),
    "segments": by_parent("segments", "subscriptions", "subscription", of=f"= {ID}", rights=CHANGE),
    "invoices": by_id(*CHANGE),
    "invoice_lines": by_parent("invoice_lines", "invoices", "invoice", of=f"= {ID}", rights=ADD),
    "invoice_parties": by_id(*ALL),
    "credit_notes": by_parent("credit_notes", "invoices", "invoice", of=f"= {ID}", rights=READ),
    "disputes": by_id(*READ),
    "dunning": by_parent("dunning", "invoices", "invoice", of=f"= {ID}", rights=READ),
    "rated": by_parent("rated", "invoices", "invoice", of=f"= {ID}", rights=NONE),
    "billing_outbox": by_name(),
    "credit_transactions": by_id(*READ),
    "credit_entries": by_parent("credit_entries", "credit_transactions", "seq", "seq", of=f"= {ID}", rights=READ),
    "credit_grants": by_id(*READ),
    "credit_balances": by_id(*READ),
    "spend_alerts": by_id(*ALL),
    "coupon_redemptions": by_id(*ADD),
    "imported_subscriptions": by_id(*READ),
}
"""The tables with rows of customers."""

SHARED = {
    "rollup": "how far usage is rolled up",
    "rollout": "who is charged, as people say at run time",
    "billing_waivers": "when nothing was charged",
    "credit_head": "how far usage is booked: the end of the journal of credits",
}
"""The tables without customers that transactions serving a customer may read, and their content."""

CLOSED = {
    "alembic_version": "the revision of the tables",
    "minutes_floor": "for how long the owner keeps minutes",
    "edges": "edges, which serve many customers",
    "traffic": "what edges answered, of many customers",
    "traffic_routes": "the same by route",
    "batches": "what edges shipped, each batch of many customers",
    "late_hours": "hours of edges",
    "checkpoints": "batches of edges that were dropped",
    "dead_letters": "events that were rejected, whose customer may be anything",
    "book_keys": "keys of the books of all; read with the rights of the collector",
    "encryption_keys": "keys that wrap data keys of all; read with the rights of the collector",
    "audit": "one chain for all; written with the rights of the collector",
    "audit_head": "the end of that chain",
    "coupons": "how often coupons were redeemed; used with the rights of the collector",
    "flags": "flags of all",
    "withdrawn_arrivals": "moves, by id",
    "idempotency": "answers, encrypted, by a hash of who asked; used with the rights of the collector",
    "directory_log": "signed versions of the directory, each of all customers",
    "directory_parts": "parts of these",
    "price_changes": "who has changed prices, and why",
    "billing_slices": "which slices of time are exported",
    "billing_exporter": "how the exporter is",
    "webhook_events": "what Stripe has sent, encrypted",
    "webhook_polls": "how far Stripe's lists were read",
    "reconciliations": "comparisons over all customers",
    "billing_answers": "how the API of billing answers",
    "anomaly_progress": "how far jobs have looked",
    "checks": "how regions answered",
    "incidents": "what went wrong, public by the status page",
    "incident_updates": "what was said of it",
    "sign_ups": "addresses of people who are no customers yet",
    "status_subscribers": "addresses of the public that have updates of incidents",
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
    return TableState(False, False, (), READ if table in SHARED else NONE)


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
    login, states = await fetch_login(connection), await fetch_states(connection)
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


async def must_see_rows(connection: AsyncConnection) -> None:
    """Raise HiddenRowsError if policies hide all rows from the user, because the ledger would look empty."""
    login = await fetch_login(connection)
    if login.hidden_by(await fetch_states(connection)):
        raise HiddenRowsError(await find_gap(connection))


async def enforce(begin: Begin) -> str | None:
    """Bring roles, policies and rights up to date as far as the user may. Return the gap that remains (`find_gap`).

    Each table is changed in its own transaction: locking all tables at once could deadlock with other users. Raises
    HiddenRowsError.
    """
    async with begin() as connection:
        await _lock(connection)
        if not (login := await fetch_login(connection)).is_complete:
            await _try_statement(connection, roles_sql(login.name))
        await must_see_rows(connection)
        is_complete = (await fetch_login(connection)).is_complete
        states = await fetch_states(connection)
    for table, state in states.items():
        if is_complete and state != expected_state(table):
            async with begin() as connection:
                await _lock(connection)
                await connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
                if not await _try_statement(connection, _table_sql(table)):
                    break  # The other tables would take as long, and batches would wait meanwhile.
    async with begin() as connection:
        return await find_gap(connection)


async def _lock(connection: AsyncConnection) -> None:
    """Lock policies against changes by other sessions until the transaction ends."""
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
    """Return the digest that a policy's comment holds, to recognize the condition of an existing policy."""
    return hashlib.sha256(condition.encode()).hexdigest()[:16]


def quote_name(name: str) -> str:
    """Return a name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'
