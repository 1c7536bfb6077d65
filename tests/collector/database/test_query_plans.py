"""Frequent queries of pages and jobs use an index, so they stay fast with a million rows of everything.

SQLite plans by the schema alone, so an empty database shows the plan.
"""

import asyncio
import re
from pathlib import Path
from typing import Any

from sqlalchemy import event

from edgeproxy.collector.accounts import audit, customers, rotation
from edgeproxy.collector.alerts import reports
from edgeproxy.collector.billing.invoices import invoiced_lines, invoices
from edgeproxy.collector.billing.subscriptions import subscription_rows
from edgeproxy.collector.customer_search import search_customers
from edgeproxy.collector.database.billing_tables import subscriptions
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.events import dead_letters
from edgeproxy.collector.ledger import edges, quarantine
from edgeproxy.config.collector.rotation import Rotation
from loadtest.testbed.tables_ready import put_tables

NOW = 1_790_000_000
MANY = frozenset(
    {
        *("customers", "keys", "subscriptions", "invoices", "invoice_lines", "audit", "alerts", "alert_deliveries"),
        *("batches", "dead_letters"),
    }
)
"""Tables that grow with customers and time."""
SCAN = re.compile(r"SCAN (\w+)")
SORT = "USE TEMP B-TREE FOR ORDER BY"


def test_no_page_and_no_job_reads_or_sorts_a_large_table(tmp_path: Path) -> None:
    plans: dict[str, list[str]] = {}

    async def ask() -> None:
        database = await Database.connect(put_tables(f"sqlite:///{tmp_path}/ledger.db"))
        asked: list[tuple[str, Any]] = []
        async with database.reading() as connection:

            def note(_: object, __: object, statement: str, parameters: Any, *___: object) -> None:
                asked.append((statement, parameters))

            event.listen(connection.sync_engine, "before_cursor_execute", note)
            await customers.list_customers(connection, "a", 50)
            await search_customers(connection, database, "acme_v1_", 50)
            for column in ("actor", "action", "target"):
                await audit.list_entries(connection, 7, 50, newest_first=True, **{column: "x"})
            await audit.list_entries(connection, 7, 50, newest_first=True)
            for state in ("held", "paid", None):
                await invoices.list_invoices(connection, "a", 50, state=state)
            await invoiced_lines.fetch_lines_of_subscription(connection, "a")
            await reports.list_alerts(connection, 7, 50)
            await reports.list_alerts(connection, None, 50, customer="a")
            await edges.list_edges(connection, NOW)
            await edges.fetch_status(connection)
            await quarantine.list_batches(connection)
            await dead_letters.list_letters(connection, "a", 25)
            for every in (None, 90 * 86400.0):
                settings = Rotation(deliver="portal", every=every)
                await rotation.list_due_alerts(connection, NOW, 86400, every)
                await rotation.list_reminders(connection, NOW, settings, {})
                await rotation.list_end_reminders(connection, NOW, settings.remind_end)
                await rotation.count_overdue(connection, NOW, every)
            of_customer = subscriptions.c.customer == "a"
            await subscription_rows.fetch_subscriptions(connection, of_customer, subscriptions.c.period_end > NOW)
            await subscription_rows.has_had_trial(connection, "a")
            await subscription_rows.list_due(connection, NOW, 500)
            await subscription_rows.list_deleted_customers(connection, 500)
            event.remove(connection.sync_engine, "before_cursor_execute", note)
            for statement, parameters in asked:
                rows = await connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
                plans[statement] = [row.detail for row in rows]
        await database.close()

    asyncio.run(ask())
    for statement, plan in plans.items():
        scans = [(scan[1], "USING" in step) for step in plan if (scan := SCAN.match(step))]
        # An index may have few rows of its table, or be read in order up to a limit; not that of lines.
        whole = {table for table, is_by_index in scans if not is_by_index or table == "invoice_lines"}
        assert not whole & MANY, (statement, plan)
        # A query with few rows, for example of rotating keys, may sort them.
        assert SORT not in plan or not re.search(r"FROM (audit|invoices JOIN|alerts)\b", statement), (statement, plan)
