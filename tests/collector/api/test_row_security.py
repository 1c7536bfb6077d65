"""Row-level security on PostgreSQL: SQL for a customer sees only its rows, without a handler or in a faulty one."""

import asyncio
import io
import itertools
import re
import sys
import time
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import orjson
import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection
from typer.testing import CliRunner

from edgeproxy import cli
from edgeproxy.collector.database import row_security
from edgeproxy.collector.database.book_text import BookText
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.row_security import CLOSED, CUSTOMER_ROLE, ID, OWN_SERIES, PROTECTED, SHARED, serving
from edgeproxy.collector.database.schema import HOUR, LargeBinary, metadata
from loadtest.testbed.batch_chains import Chain
from loadtest.testbed.collector import ADMIN, OWN, SERVICE, Collector, checked
from loadtest.testbed.http_client import Answer, ask
from loadtest.testbed.postgresql import Postgresql
from loadtest.testbed.tables_ready import make_tables
from loadtest.testbed.waiting import until
from tests.support.site import PagesStage

SOURCES = itertools.count(1)
A, B = "acme", "bolt"
TOP_UP = {"below": 5_000_000, "millicredits": 20_000_000, "month_max": 100_000_000}
PUBLIC_KEY = {"kty": "OKP", "crv": "X25519", "x": "hSDwCYkwp1R0i33ctD73Wg2_Og0mOBr066SpjqqbTmo"}
PARENTS = {
    "series": "series",
    "alert": "alerts",
    "token": "tokens",
    "subscription": "subscriptions",
    "invoice": "invoices",
    "seq": "credit_transactions",
    "message": "webhook_messages",
}
"""By the name of a foreign key column: the table that it refers to."""
OF_OWN_PRICE = {("plan_versions", "version"), ("price_moves", "before"), ("price_moves", "after")}
"""Columns that hold a plan version. The version of a customer's own price contains the customer's name."""
NOT_OWN = "42501"
"""The SQLSTATE for a row that a policy rejects, and for a missing right."""
ROW = "concat(tableoid, ctid)"
"""A row's place. Each month's partition of the ledger has its own ctids, and usage of some hours ago may be in another
month.
"""


class Customer:
    """A customer with a token and with rows of every kind that the API creates."""

    def __init__(self, stage: PagesStage, name: str) -> None:
        self.name = name
        self._collector = stage.collector
        self.id: str = self.made("GET", f"/v1/customers/{name}")["id"]
        self.token: str = self.made("POST", "/v1/tokens", {"name": f"of-{name}", "customer": name})["secret"]
        hook = {"url": f"http://127.0.0.1:1/of-{name}"}
        self.endpoint: str = self.made("POST", f"/v1/customers/{name}/webhook-endpoints", hook)["id"]
        self.key: str = self.made("POST", f"/v1/customers/{name}/keys", {"name": f"key of {name}"})["id"]
        since = int(time.time()) // HOUR * HOUR - 3 * HOUR
        chain = Chain(f"edge-{name}", f"region-of-{name}", since)
        assert self._collector.post(chain.next((name, "requests", f"route-of-{name}", 9000))).status == 200
        usage = {
            "source": "app",
            "customer": name,
            "meter": "llm_tokens",
            "value": 5,
            "dimensions": {"model": f"m-{name}"},
        }
        self.made("POST", "/v1/events", [usage | {"id": name}], token=SERVICE)
        self.made("PUT", f"/v1/customers/{name}/holdings/workflows/flow-of-{name}", {}, token=SERVICE)
        self.made("POST", "/billing/subscription", {"plan": "standard", "coupon": "launch20"}, token=self.token)
        invoices = self.made("GET", "/billing/invoices", token=self.token)["invoices"]
        self.invoice: str = invoices[0]["id"]
        checkout = {"millicredits": 25_000_000, "success_url": "https://example.com/"}
        purchase = self.made("POST", "/billing/checkout", checkout, token=self.token)
        self.purchase: str = purchase["id"]
        body = orjson.dumps({"card": "pm_card_visa"})
        paying = purchase["url"].removeprefix(stage.sandbox.url)
        stage.sandbox.ask(f"{paying}/pay", "POST", {"Content-Type": "application/json"}, body)
        until(
            lambda: self.purchase in self.ask("GET", "/billing/purchases").body.decode(),
            "the purchase is booked",
            seconds=60,
        )

    @property
    def secrets(self) -> tuple[str, ...]:
        """Values that no other customer may see."""
        return (
            self.id,
            self.key,
            self.endpoint,
            self.invoice,
            self.purchase,
            *(f"{what}{self.name}" for what in ("route-of-", "m-")),
        )

    def ask(self, method: str, path: str, body: object = None, *, port: int | None = None, once: str = "") -> Answer:
        """Send a request with the customer's token."""
        return send(port or self._collector.port, self.token, method, path, body, once)

    def made(self, method: str, path: str, body: object = None, token: str = ADMIN, **query: str) -> Any:
        """Send a request, assert that it succeeds, and return the decoded answer."""
        path += "".join(f"?{name}={value}" for name, value in query.items())
        answer = send(self._collector.port, token, method, path, body)
        expected = 202 if path == "/v1/events" else {"GET": 200, "POST": 201, "PUT": 201}[method]
        assert answer.status == expected, (path, answer)
        return answer.json()


def send(port: int, token: str, method: str, path: str, body: object, once: str = "") -> Answer:
    """Send a request from a new source address: some endpoints allow only a few requests a minute per address."""
    number = next(SOURCES)
    source = f"127.{port % 200 + 1}.{number // 250}.{number % 250 + 1}"
    fields = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    if once:
        fields["Idempotency-Key"] = once
    content = None if body is None else orjson.dumps(body)
    return ask(port, path, method=method, fields=fields, body=content, source=source)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory, postgresql: Postgresql) -> Iterator[PagesStage]:
    """A collector with pages and payments on PostgreSQL."""
    with closing(PagesStage(tmp_path_factory.mktemp("row-security"), postgresql.database())) as stage:
        yield stage


@pytest.fixture(scope="module")
def both(stage: PagesStage) -> tuple[Customer, Customer]:
    """Two customers, each with rows in all tables that the API writes."""
    return Customer(stage, A), Customer(stage, B)


@pytest.fixture(scope="module")
def unguarded(
    tmp_path_factory: pytest.TempPathFactory, stage: PagesStage, both: tuple[Customer, Customer]
) -> Iterator[Collector]:
    """Another collector on the same database. Its handlers do not check the owner of the requested object."""
    settings = {name: value for name, value in stage.collector.settings.items() if name not in ("listen", "database")}
    with closing(Collector(tmp_path_factory.mktemp("bug") / "collector", url_of(stage), **settings)) as collector:
        collector.command = (sys.executable, "-m", "tests.support.unguarded", "collector", "-c")
        yield collector.start()


def url_of(stage: PagesStage) -> str:
    url: str = stage.collector.settings["database"]
    return url


# ---- the schema


def test_each_table_is_protected_shared_or_closed() -> None:
    tables = [*PROTECTED, *SHARED, *CLOSED]
    assert sorted(tables) == sorted([*metadata.tables, "alembic_version"])


async def test_each_table_with_a_customer_is_secured(postgresql: Postgresql) -> None:
    """Asks PostgreSQL's catalogue about every table, so a table added later is checked too."""

    database = await Database.connect(postgresql.database())
    assert database.row_security_gap is None
    async with database.writing() as connection:
        await database.ledger.add(connection, metadata.tables["ledger"], {0: {1: 1}})
        tables = await connection.exec_driver_sql(
            "SELECT relname, relrowsecurity AND relforcerowsecurity AS is_forced,"
            " ARRAY(SELECT polroles::regrole[]::text FROM pg_policy WHERE polrelid = c.oid ORDER BY 1) AS roles,"
            " EXISTS (SELECT FROM pg_attribute WHERE attrelid = c.oid AND attname = 'customer') AS has_customer,"
            f" has_any_column_privilege('{CUSTOMER_ROLE}', c.oid, 'SELECT, INSERT, UPDATE') AS is_open"
            " FROM pg_class c WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')"
        )
        rows = {row.relname: row for row in tables}
    await database.close()
    assert {name for name, row in rows.items() if row.has_customer} <= PROTECTED.keys()
    for name in PROTECTED:
        assert (rows[name].is_forced, rows[name].roles) == (True, ["{edgeproxy_collector}", "{edgeproxy_customer}"])
    unprotected = {name for name in rows if name not in PROTECTED}
    assert {name for name in unprotected if rows[name].is_open} == SHARED.keys()
    assert "ledger_1970_01" in unprotected, "a partition, to which nobody but its owner has a right"


# ---- SQL without a handler


class Filler:
    """Fills tables that the scenario leaves empty with rows built from the schema alone."""

    def __init__(self, connection: AsyncConnection, customers: Mapping[str, str]) -> None:
        self._connection = connection
        self._customers = customers
        self._numbers = itertools.count(900_000_000)

    async def fill(self, table: str, name: str) -> None:
        """Insert a row that belongs to a customer."""
        row: dict[str, Any] = {}
        for column in metadata.tables[table].columns:
            parent = PARENTS.get(column.name)
            if column.name == "customer":
                row["customer"] = self._customers[name] if ID in PROTECTED[table].own else name
            elif parent == "series" and OWN_SERIES in PROTECTED[table].own:
                row[column.name] = (await visible(self._connection, parent, name, "id"))[0]
            elif parent is not None and f" FROM {parent} p" in PROTECTED[table].own:
                key = re.search(r"p\.(\w+) = ", PROTECTED[table].own)
                assert key is not None
                row[column.name] = (await visible(self._connection, parent, name, key[1]))[0]
            elif table == "directory_outbox" and column.name in ("kind", "name"):
                row[column.name] = "customer" if column.name == "kind" else name
            elif (table, column.name) in (("cancellations", "subscription"), ("invoice_parties", "invoice")):
                row[column.name] = (await visible(self._connection, PARENTS[column.name], name, "id"))[0]
            elif column.name == "side":
                row["side"] = "customer"
            elif (table, column.name) in OF_OWN_PRICE:
                row[column.name] = f"standard@9+{name}"
            elif (table, column.name) == ("price_moves", "change"):
                row["change"] = await self._make_change(name)
            elif column.name == "encryption_key":
                row["encryption_key"] = await self._make_key()
            elif column.nullable:
                continue
            elif isinstance(column.type, LargeBinary):
                row[column.name] = b"-"
            else:
                number = next(self._numbers)
                row[column.name] = f"{name}-{number}" if isinstance(column.type, sa.Text | BookText) else number
        await self._connection.execute(sa.insert(metadata.tables[table]).values(row))

    async def _make_change(self, name: str) -> str:
        """Insert a price change and return its id. A price change itself names no customer."""
        row = {"id": f"change-of-{name}", "at": 0, "state": "done", "why": "-", "created_at": 0, "created_by": "-"}
        await self._connection.execute(sa.insert(metadata.tables["price_changes"]), [row])
        return row["id"]

    async def _make_key(self) -> int:
        """Insert a key that wraps data keys and return its id. It belongs to no customer."""
        row: dict[str, Any] = {"id": next(self._numbers), "wrapped": b"-", "sha256": "-", "created_at": 0}
        await self._connection.execute(sa.insert(metadata.tables["encryption_keys"]), [row])
        return int(row["id"])


async def visible(connection: AsyncConnection, table: str, customer: str, column: str = ROW) -> list[Any]:
    """Return a column of the rows of `table` that a transaction for `customer` sees."""
    async with connection.begin_nested() as tried:
        await row_security.serve(connection, customer)
        rows = list((await connection.exec_driver_sql(f"SELECT {column} FROM {table}")).scalars())
        await tried.rollback()  # This also resets the served customer.
    return rows


async def fails(connection: AsyncConnection, customer: str, statement: str, *values: Any) -> str | int:
    """Run a statement for a customer and roll it back. Return the SQLSTATE of its error, or its row count."""
    async with connection.begin_nested() as tried:
        await row_security.serve(connection, customer)
        try:
            return (await connection.exec_driver_sql(statement, values)).rowcount
        except sa.exc.DBAPIError as error:
            return str(getattr(error.orig, "sqlstate", None))
        finally:
            await tried.rollback()


async def test_sql_for_one_customer_sees_and_changes_only_its_own_rows(
    stage: PagesStage, both: tuple[Customer, Customer]
) -> None:
    """The customer role gets all rights on each table, so that only the policy separates the customers."""

    async def hold(connection: AsyncConnection, table: str) -> None:
        shared = set(await visible(connection, table, ""))
        assert not shared or table == "plan_versions"
        own, others = [set(await visible(connection, table, name)) - shared for name in (A, B)]
        assert own, table
        assert others, table
        assert not own & others, table
        columns = metadata.tables[table].columns.keys()
        if "customer" in columns:
            ids = {both[0].id, A}
            assert set(await visible(connection, table, A, "customer")) <= ids, table
        one = f'"{columns[0]}"'
        updated = await fails(connection, A, f"UPDATE {table} SET {one} = {one}")
        deleted = await fails(connection, A, f"DELETE FROM {table}")
        # Jobs of the collector may add rows meanwhile.
        counts = range(len(own | shared), len(await visible(connection, table, A)) + 1)
        assert updated in counts, table
        assert deleted in (*counts, "23503"), (table, deleted)
        foreign = f"SELECT * FROM {table} WHERE {ROW} = $1"
        (row,) = (await connection.exec_driver_sql(foreign, (min(others),))).mappings()
        marks = ", ".join(f"${n}" for n in range(1, len(row) + 1))
        names = ", ".join(f'"{name}"' for name in row)
        inserted = await fails(connection, A, f"INSERT INTO {table} ({names}) VALUES ({marks})", *row.values())
        assert inserted == NOT_OWN, (table, inserted)
        if "customer" in columns:
            theirs = row["customer"]
            assert await fails(connection, A, f"UPDATE {table} SET customer = $1", theirs) == NOT_OWN, table

    database = await Database.connect(url_of(stage), as_it_is=True)
    async with database.writing() as connection:
        await connection.exec_driver_sql(f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {CUSTOMER_ROLE}")
        filler = Filler(connection, {one.name: one.id for one in both})
        for table in PROTECTED:
            for one in (A, B):
                if not set(await visible(connection, table, one)) - set(await visible(connection, table, "")):
                    await filler.fill(table, one)
        for table in PROTECTED:
            await hold(connection, table)
        await connection.rollback()
    await database.close()


async def test_a_statement_lists_the_series_of_its_customer_once(
    stage: PagesStage, both: tuple[Customer, Customer]
) -> None:
    """To look the series up for each of its days takes several times as long."""
    database = await Database.connect(url_of(stage), as_it_is=True)
    async with database.writing() as connection:
        listed = [set((await visible(connection, "series", name, f"{OWN_SERIES}()"))[0]) for name in (A, B)]
        assert listed == [set(await visible(connection, "series", name, "id")) for name in (A, B)]
        assert not listed[0] & listed[1]
        for table in ("days", "hours", "ledger", "series_dimensions"):
            await row_security.serve(connection, A)
            plan = "\n".join(await connection.scalars(sa.text(f"EXPLAIN SELECT 1 FROM {table} WHERE series = 1")))
            assert "hashed SubPlan" in plan, plan
        await connection.rollback()
    await database.close()


async def test_a_customer_cannot_send_messages_to_another_customers_endpoint(
    stage: PagesStage, both: tuple[Customer, Customer]
) -> None:
    """The other endpoint's secret would sign the message, so the other customer's server would trust it."""
    message = "INSERT INTO webhook_messages (id, customer, type, body, at) VALUES ($1, $2, 'invoice.paid', '{}', 0)"
    delivery = (
        "INSERT INTO webhook_deliveries (message, endpoint, state, attempts, due_at, busy_until)"
        " VALUES ($1, $2, 'due', 0, 0, 0)"
    )

    database = await Database.connect(url_of(stage), as_it_is=True)
    async with database.writing() as connection:
        own, other = both
        await connection.exec_driver_sql(message, ("msg_forged", own.id))
        assert await fails(connection, A, delivery, "msg_forged", own.endpoint) == 1
        assert await fails(connection, A, delivery, "msg_forged", other.endpoint) == NOT_OWN
        await connection.exec_driver_sql(delivery, ("msg_forged", own.endpoint))
        moved = "UPDATE webhook_deliveries SET endpoint = $1 WHERE message = 'msg_forged'"
        assert await fails(connection, A, moved, other.endpoint) == NOT_OWN
        await connection.rollback()
    await database.close()


async def test_customer_role_cannot_access_tables_without_customers(
    stage: PagesStage, both: tuple[Customer, Customer]
) -> None:
    database = await Database.connect(url_of(stage), as_it_is=True)
    async with database.writing() as connection:
        for table in (*CLOSED, *(name for name, rows in PROTECTED.items() if not rows.rights)):
            assert await fails(connection, A, f"SELECT FROM {table}") == NOT_OWN, table
        (partition, *_) = (
            await connection.exec_driver_sql(
                "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'ledger'::regclass"
            )
        ).scalars()
        for statement in (
            f"SELECT FROM {partition}",
            "UPDATE rollout SET percent = 0",
            "ALTER TABLE keys DISABLE ROW LEVEL SECURITY",
            "DROP POLICY customer_rows ON keys",
            "CREATE TABLE mine ()",
        ):
            assert await fails(connection, A, statement) == NOT_OWN, statement
    await database.close()


async def test_served_customer_is_reset_at_the_end_of_a_transaction(
    stage: PagesStage, both: tuple[Customer, Customer]
) -> None:
    """This holds after a failure too, and on a reused connection: all writing transactions share one connection."""

    database = await Database.connect(url_of(stage), as_it_is=True)
    who = f"SELECT current_user || ' ' || coalesce(current_setting('{row_security.SETTING}', true), '')"

    async def current_role(*, writes: bool, whole: bool = False) -> str:
        async with database.writing() if writes else database.reading(whole=whole) as connection:
            return str((await connection.exec_driver_sql(who)).scalar_one())

    for _ in range(2 * 4):  # Uses each connection for reading twice.
        for how in ({"writes": True}, {"writes": False}, {"writes": False, "whole": True}):
            with serving(A):
                assert await current_role(**how) == f"{CUSTOMER_ROLE} {A}"
            with serving(B), pytest.raises(sa.exc.DBAPIError):
                async with database.writing() if how["writes"] else database.reading() as connection:
                    await connection.exec_driver_sql("SELECT 1 / 0")
            assert (await current_role(**how)).strip() == "edgeproxy"
    with serving(A):
        async with database.writing() as connection:
            with suppress(LookupError):
                async with row_security.across_customers(connection):
                    assert (await connection.exec_driver_sql(who)).scalar_one() == f"edgeproxy {A}"
                    async with row_security.across_customers(connection):
                        pass  # Writing an audit entry nests in this way.
                    assert (await connection.exec_driver_sql(who)).scalar_one() == f"edgeproxy {A}"
                    raise LookupError
            assert (await connection.exec_driver_sql(who)).scalar_one() == f"{CUSTOMER_ROLE} {A}"
    await database.close()


# ---- with a handler


async def raise_alert(stage: PagesStage) -> int:
    """Raise an alert about A, and return its id."""
    database = await Database.connect(url_of(stage), as_it_is=True)
    table = metadata.tables["alerts"]
    row = {
        "key": "of-a-test",
        "kind": "quota_reached",
        "severity": "warn",
        "customer": A,
        "title": "-",
        "details": "{}",
    }
    async with database.writing() as connection:
        raised = await connection.execute(sa.insert(table).values(**row, at=1, routed_at=1).returning(table.c.id))
        number = int(raised.scalar_one())
    await database.close()
    return number


def test_every_endpoint_for_customers_works_under_row_security(
    stage: PagesStage, both: tuple[Customer, Customer]
) -> None:
    own, other = both
    stage.save_card(A)
    path, change = f"/v1/customers/{A}", {"plan": "standard"}
    month = time.strftime("%Y-%m", time.gmtime())
    url, hooks = "https://example.com/", f"{path}/webhook-endpoints"
    alert = asyncio.run(raise_alert(stage))
    tomorrow = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 86400))
    rows: list[tuple[str, str, object, int]] = [
        ("GET", "/v1/alerts", None, 200),
        ("POST", f"/v1/alerts/{alert}/acknowledge", {}, 200),
        ("POST", f"/v1/alerts/{alert}/assign", {"to": "ops"}, 200),
        ("POST", f"/v1/alerts/{alert}/mute", {"until": tomorrow, "why": "known"}, 200),
        ("GET", "/v1/anomalies", None, 200),
        ("GET", "/v1/usage?from=1970-01-01&by=customer", None, 200),
        ("GET", "/v1/usage/value?meter=llm_tokens", None, 200),
        ("GET", "/v1/customers", None, 200),
        ("GET", path, None, 200),
        ("GET", f"{path}/contacts", None, 200),
        ("POST", f"{path}/contacts", {"email": f"new@{A}.example", "role": "owner"}, 403),  # Only people may.
        ("POST", f"{path}/contacts/remove", {"email": f"{A}@example.com"}, 403),
        ("GET", "/v1/incidents", None, 200),
        ("GET", f"{path}/data", None, 403),
        ("DELETE", path, None, 403),
        ("GET", f"{path}/alert-address", None, 200),
        ("PUT", f"{path}/alert-address", {"email": f"{A}@example.com"}, 200),
        ("PUT", f"{path}/preferred-region", {"region": None}, 200),
        ("GET", f"{path}/limits", None, 200),
        ("GET", f"{path}/limits/raise", None, 200),
        ("GET", f"{path}/access", None, 200),
        ("GET", f"{path}/quotas", None, 200),
        ("GET", f"{path}/holdings/workflows", None, 200),
        ("GET", f"{path}/keys", None, 200),
        ("GET", f"{path}/keys?due=true", None, 200),
        ("POST", f"{path}/keys", {"name": "another", "budget": "50 calls/day"}, 201),
        ("GET", f"{path}/key-budgets", None, 200),
        ("GET", f"{path}/key-rotation", None, 200),
        ("PUT", f"{path}/public-key", {"jwk": PUBLIC_KEY}, 200),
        ("DELETE", f"{path}/public-key", None, 200),
        ("GET", f"/v1/keys/{own.key}", None, 200),
        ("PATCH", f"/v1/keys/{own.key}", {"name": "renamed"}, 200),
        ("POST", f"/v1/keys/{own.key}/rotate", {"overlap": "1d"}, 201),
        ("DELETE", f"/v1/keys/{own.key}", None, 200),
        ("GET", hooks, None, 200),
        ("POST", hooks, {"url": "http://127.0.0.1:1/"}, 201),
        ("GET", f"{hooks}/{own.endpoint}", None, 200),
        ("PATCH", f"{hooks}/{own.endpoint}", {"description": "renamed"}, 200),
        ("POST", f"{hooks}/{own.endpoint}/secret", None, 201),
        ("POST", f"{hooks}/{own.endpoint}/test", None, 202),
        ("GET", f"{hooks}/{own.endpoint}/messages", None, 200),
        ("POST", f"{hooks}/{own.endpoint}/messages/msg_0/redeliver", None, 404),
        ("DELETE", f"{hooks}/{own.endpoint}", None, 200),
        ("GET", "/billing/subscription", None, 200),
        ("GET", "/billing/subscription/coupon", None, 200),
        ("POST", "/billing/subscription/preview", {"plan": "enterprise"}, 200),
        ("POST", "/billing/upgrade?tier=enterprise", None, 200),
        ("PUT", "/billing/subscription", change, 200),
        ("GET", "/billing/usage", None, 200),
        ("GET", "/billing/usage/llm_tokens", None, 200),
        ("GET", "/billing/quotas", None, 200),
        ("GET", "/billing/invoices", None, 200),
        ("GET", "/billing/receivables", None, 200),
        ("GET", "/billing/invoices/upcoming?projected=true", None, 200),
        ("GET", "/billing/costs", None, 200),
        ("PUT", "/billing/spend-alerts", {"amounts": [100]}, 200),
        ("GET", "/billing/spend-alerts", None, 200),
        ("GET", f"/billing/invoices/{own.invoice}", None, 200),
        ("GET", f"/billing/invoices/{own.invoice}/pdf", None, 303),
        ("GET", f"/billing/invoices/{own.invoice}/lines/0", None, 200),
        ("GET", "/billing/subscription/plan", None, 200),
        ("GET", "/billing/balance", None, 200),
        ("GET", "/billing/statements", None, 200),
        ("GET", f"/billing/statements/{month}", None, 200),
        ("GET", f"/billing/statements/{month}/usage", None, 200),
        ("GET", "/billing/consumptions", None, 200),
        ("GET", "/billing/purchases", None, 200),
        ("GET", f"/billing/purchases/{own.purchase}/receipt", None, 303),
        ("POST", "/billing/checkout", {"millicredits": 5_000_000, "success_url": url}, 201),
        ("POST", "/billing/portal", {"return_url": url}, 201),
        ("PUT", "/billing/credits/top-up", TOP_UP, 200),
        ("GET", "/billing/credits/top-up", None, 200),
        ("DELETE", "/billing/credits/top-up", None, 200),
        ("GET", "/billing/details", None, 200),
        ("PATCH", "/billing/details", {"name": "Own Ltd", "email": None, "tax_number": None}, 200),
        ("GET", "/billing/plans/costs", None, 200),
        ("POST", "/billing/subscription/cancel", {"reason": "other", "comment": "Own words"}, 200),
        ("GET", "/billing/cancellations", None, 200),
        ("DELETE", "/billing/subscription?when=now", None, 200),
    ]
    requested = {("POST", "/billing/subscription")}  # The fixture sent it with the customer's token: it works once.
    for method, path, body, status in rows:
        answer = own.ask(method, path, body)
        assert answer.status == status, (method, path, answer)
        assert not leaked(other, answer), (method, path, answer)
        requested.add((method, path))
    new = "POST", f"{path}/keys", {"name": "once"}
    assert own.ask(*new, once=A).body == own.ask(*new, once=A).body, "the answer is kept, and given again"
    for method, template in open_to_customers(stage.collector):
        shape = re.compile(re.sub(r"\{[^}]+\}", "[^/]+", template) + r"(\?.*)?")
        assert any(one == method and shape.fullmatch(path) for one, path in requested), (method, template)


def test_owner_changes_and_removes_a_signed_in_colleague(stage: PagesStage) -> None:
    body = {"email": "ann@example.com", "role": "owner"}
    assert stage.collector.send("POST", f"/v1/customers/{A}/contacts", body).status == 201
    with stage.customer("ann") as ann, stage.customer(A) as owner:
        for form, role in (("role", "developer"), ("remove", "")):
            owner.get("/account/team")
            fields = next(
                one.fields for one in owner.read.forms if one.action.endswith(form) and "ann@" in one.fields["email"]
            )
            owner.post(f"{stage.site}/account/team/{form}", fields | ({"role": role} if role else {}))
            assert owner.status == 200, owner.read.text
            ann.get("/account/keys" if role else "/account")
            assert ann.answer.url.path == ("/account/keys" if role else "/sign-in")
    answer = stage.collector.get(f"/v1/customers/{A}/contacts").json()
    assert [(contact["email"], contact["role"]) for contact in answer["contacts"]] == [(f"{A}@example.com", "owner")]


def test_owners_download_includes_closed_tables_and_no_other_customer(
    stage: PagesStage,
) -> None:
    with stage.customer(A) as owner:
        owner.get("/account/data")
        owner.send("/account/data/download")
        assert owner.status == 200, owner.read.text
        with zipfile.ZipFile(io.BytesIO(owner.answer.content)) as archive:
            assert {"json/contacts.json", "json/audit.json", "json/sessions.json"} <= set(archive.namelist())
            everything = b"".join(archive.read(name) for name in archive.namelist())
    assert f"{A}@example.com".encode() in everything
    assert f"{B}@example.com".encode() not in everything


def test_faulty_handler_neither_shows_nor_changes_another_customer(
    unguarded: Collector, both: tuple[Customer, Customer]
) -> None:
    own, other = both
    theirs, whose = f"/v1/customers/{B}", f"?customer={B}"
    lists = [
        "/v1/alerts",
        f"/v1/alerts{whose}",
        "/v1/usage?from=1970-01-01&by=customer,route",
        f"/v1/usage?from=1970-01-01&customer={B}&by=route&format=csv",
        f"/v1/usage?from=1970-01-01&customer={B}&by=model&meter=llm_tokens",
        "/billing/invoices",
    ]
    reads = [
        theirs,
        *(
            f"{theirs}/{part}"
            for part in (
                *(
                    "contacts",
                    "alert-address",
                    "limits/raise",
                    "access",
                    "quotas",
                    "holdings/workflows",
                    "keys",
                    "key-budgets",
                ),
                *("webhook-endpoints", f"webhook-endpoints/{other.endpoint}"),
                f"webhook-endpoints/{other.endpoint}/messages",
            )
        ),
        f"/v1/keys/{other.key}",
        *(
            f"/billing/{part}{whose}"
            for part in ("subscription", "usage", "invoices", "receivables", "balance", "purchases", "consumptions")
        ),
        f"/billing/invoices/{other.invoice}",
        f"/billing/invoices/{other.invoice}/lines/0",
        f"/billing/purchases/{other.purchase}/receipt",
    ]
    for path in (*lists, *reads):
        answer = own.ask("GET", path, port=unguarded.port)
        assert answer.status == (200 if path in lists else 404), (path, answer)
        assert not leaked(other, answer), (path, answer)
    before = state_of(other)
    for method, path, body in (
        ("POST", f"{theirs}/keys", {"name": "mine"}),
        ("POST", f"{theirs}/webhook-endpoints", {"url": "http://127.0.0.1:1/"}),
        ("PATCH", f"{theirs}/webhook-endpoints/{other.endpoint}", {"url": "http://127.0.0.1:1/"}),
        ("POST", f"{theirs}/webhook-endpoints/{other.endpoint}/test", None),
        ("DELETE", f"{theirs}/webhook-endpoints/{other.endpoint}", None),
        ("PATCH", f"/v1/keys/{other.key}", {"name": "mine"}),
        ("POST", f"/v1/keys/{other.key}/rotate", {"overlap": "1d"}),
        ("DELETE", f"/v1/keys/{other.key}", None),
        ("PUT", f"{theirs}/alert-address", {"email": None}),
        ("PUT", f"{theirs}/preferred-region", {"region": None}),
        ("DELETE", f"/billing/subscription{whose}", None),
        ("POST", f"/billing/upgrade{whose}&tier=enterprise", None),
        ("POST", f"/billing/portal{whose}", {"return_url": "https://example.com/"}),
    ):
        answer = own.ask(method, path, body, port=unguarded.port)
        assert answer.status == 404, (method, path, answer)
    assert state_of(other) == before
    # The customer's own objects remain available in spite of the bug.
    assert own.ask("GET", f"/v1/customers/{A}", port=unguarded.port).json()["id"] == own.id


def test_portal_session_is_limited_to_its_customer_like_a_token(
    stage: PagesStage, unguarded: Collector, both: tuple[Customer, Customer]
) -> None:
    own, other = both
    with stage.customer(A) as visitor:
        at = f"http://127.0.0.1:{unguarded.port}/account/invoices"
        assert visitor.client.get(f"{at}/{own.invoice}").status_code == 200
        assert visitor.client.get(f"{at}/{other.invoice}").status_code == 404


def state_of(customer: Customer) -> list[bytes]:
    """Return the customer's answers that show whether another customer changed its objects."""
    paths = (f"/v1/customers/{customer.name}", f"/v1/customers/{customer.name}/keys", "/billing/subscription")
    return [customer.ask("GET", path).body for path in paths]


def leaked(other: Customer, answer: Answer) -> bool:
    return any(secret in answer.body.decode() + str(answer.fields) for secret in other.secrets)


def open_to_customers(collector: Collector) -> list[tuple[str, str]]:
    """Return the method and path of each endpoint that allows customers."""
    paths = collector.get("/v1/openapi.json", token=None).json()["paths"]
    return [
        (method.upper(), path)
        for path, methods in paths.items()
        for method, operation in methods.items()
        if isinstance(operation, dict) and "customer" in operation.get("x-roles", ())
    ]


# ---- how row-level security is put in force


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[tuple[Postgresql, Collector]]:
    """A collector on a server without the product's roles. Its database user may not create roles."""
    with closing(Postgresql(in_memory=True)) as server:
        server.ask("CREATE ROLE plain LOGIN")
        server.ask("CREATE DATABASE ledger OWNER plain")
        url = f"postgresql://plain@127.0.0.1:{server.port}/ledger"
        with closing(Collector(tmp_path / "collector", url)) as collector:
            yield server, collector


def test_an_administrator_creates_roles_that_the_collector_may_not_create(
    plain: tuple[Postgresql, Collector], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A database filled by a version without row-level security gets it later."""
    server, collector = plain
    url: str = collector.settings["database"]
    with monkeypatch.context() as before:
        before.setattr(row_security, "enforce", no_gap)
        make_tables(url)
    chain = Chain(since=int(time.time()) // HOUR * HOUR - HOUR)
    usage = [("acme", "requests", "v1", 5), ("bolt", "requests", "v1", 7)]
    collector.start()
    assert collector.post(chain.next(*usage)).status == 200
    assert collector.metric("collector_row_security") == 0
    assert "row-level security does not hold customers apart" in collector.output
    assert owner_sees(server) == "1"
    assert collector.usage(token=OWN)["total"] == 0, "handlers hold them apart, as ever"

    code, text, statement = rights(collector)
    assert (code, "have an administrator run" in text) == (1, True)
    collector.end()
    server.ask_in("ledger", statement)

    collector.start()
    assert collector.metric("collector_row_security") == 1
    one_user = "the user plain owns the tables, and could switch row-level security off"
    assert rights(collector) == (0, f"row-level security is in force\n{one_user}\n", "")
    assert collector.post(chain.next(*usage)).status == 200
    assert {row["customer"]: row["value"] for row in collector.usage(by="customer")["rows"]} == {"acme": 10, "bolt": 14}
    assert checked(collector)[0] == 0
    # The next start repairs manual changes, and also a dump that was restored without rights.
    server.ask_in(
        "ledger", "ALTER TABLE keys NO FORCE ROW LEVEL SECURITY; REVOKE ALL ON series FROM edgeproxy_customer"
    )
    server.ask_in("ledger", "DROP POLICY customer_rows ON ledger; GRANT SELECT ON audit TO edgeproxy_customer")
    code, text, statement = rights(collector)
    assert (code, "audit, keys, ledger, series" in text, statement) == (1, True, "")
    collector.end()
    collector.start()
    assert collector.metric("collector_row_security") == 1
    collector.end()

    # A user that sees no rows cannot run a collector.
    server.ask("REVOKE edgeproxy_collector FROM plain")
    process = collector.begin()
    until(lambda: not process.running, "the process has ended", seconds=60)
    assert process.wait(10.0) == 2
    assert "shows the user plain no rows" in process.output
    assert owner_sees(server) == "0", "the owner is held as everybody is"
    code, text, statement = rights(collector)
    assert (code, "GRANT edgeproxy_collector" in statement) == (1, True)


async def no_gap(_: object) -> None:
    """Do nothing, as a collector version without row-level security did."""


def owner_sees(server: Postgresql) -> str:
    """Return how many series of acme the owner of the tables sees."""
    return server.ask_in("ledger", "SELECT count(*) FROM series WHERE customer = 'acme'", user="plain")


def rights(collector: Collector) -> tuple[int, str, str]:
    """Run `edgeproxy database rights`. Return its exit code, its message and the SQL that it prints."""
    done = CliRunner().invoke(cli.app, ["database", "rights", "-c", str(collector.file)])
    return (done.exit_code, done.stderr, done.stdout) if done.exit_code else (0, done.stdout, done.stderr)


async def test_row_security_of_a_locked_table_is_put_in_force_later(
    postgresql: Postgresql, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until then the collector works without row-level security and reports the gap."""
    monkeypatch.setattr(row_security, "LOCK_TIMEOUT", "100ms")
    url = postgresql.database()

    database = await Database.connect(url)
    async with database.writing() as connection:
        await connection.exec_driver_sql("ALTER TABLE keys NO FORCE ROW LEVEL SECURITY")
    async with database.reading(whole=True) as connection:
        await connection.exec_driver_sql("SELECT FROM keys")
        await database.enforce_row_security()
        assert database.row_security_gap == "policies or rights of tables are not as they should be: keys"
        with serving(A):
            async with database.reading() as other:
                assert (await other.exec_driver_sql("SELECT current_user")).scalar_one() == "edgeproxy"
    await database.enforce_row_security()
    assert database.row_security_gap is None
    await database.close()


async def test_a_change_of_the_function_of_policies_reaches_existing_databases(
    postgresql: Postgresql, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = postgresql.database()
    monkeypatch.setattr(row_security, "_OWN_SERIES", row_security._OWN_SERIES.replace("COST 1 ", "COST 2 "))
    database = await Database.connect(url)
    assert database.row_security_gap is None
    async with database.reading() as connection:
        cost = await connection.scalar(sa.text(f"SELECT procost FROM pg_proc WHERE proname = '{OWN_SERIES}'"))
    await database.close()
    assert cost == 2


def test_a_dump_by_the_owner_has_every_row_or_fails(postgresql: Postgresql) -> None:
    """pg_dump without --enable-row-security fails. It must not write a backup without rows."""
    url = postgresql.database()

    async def begin() -> None:
        database = await Database.connect(url)
        async with database.writing() as connection:
            await database.ledger.insert_series(connection, [["e", "r", name, "m", "v1", ""] for name in (A, B)])
        await database.close()

    asyncio.run(begin())
    with pytest.raises(AssertionError, match="row-level security"):
        postgresql.dump(url, "--table=series", "--no-privileges")
    again = postgresql.empty_database()
    postgresql.restore(postgresql.dump(url, "--enable-row-security"), again)
    assert postgresql.ask_in(again.rpartition("/")[2], "SELECT count(*) FROM series") == "2"
