"""Copies of an invoice in the database of a stage."""

import sqlite3
from contextlib import closing

from tests.support.site import PagesStage


def copy_invoice(stage: PagesStage, id_: str, count: int, values: dict[str, object]) -> None:
    """Store copies of an invoice with other values."""
    with closing(sqlite3.connect(stage.collector.database, timeout=30)) as database, database:
        database.row_factory = sqlite3.Row
        row = dict(database.execute("SELECT * FROM invoices WHERE id = ?", [id_]).fetchone())
        for number in range(count):
            copied = row | values | {"id": f"{id_[:-2]}x{number}", "period": f"{number}"}
            names = ", ".join(copied)
            database.execute(
                f"INSERT INTO invoices ({names}) VALUES ({', '.join('?' * len(copied))})", [*copied.values()]
            )
