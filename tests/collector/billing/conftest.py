"""Databases of these tests."""

from pathlib import Path

import pytest

from loadtest.testbed.tables_ready import put_tables


@pytest.fixture
def sqlite_database(tmp_path: Path) -> str:
    """The URL of a database of SQLite that has the tables and no row: for tables of cases that both databases share."""
    return put_tables(f"sqlite:///{tmp_path}/data/ledger.db")
