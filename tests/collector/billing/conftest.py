"""Databases of these tests."""

from pathlib import Path

import pytest

from loadtest.testbed.tables_ready import put_tables
from tests.support.sold import KEY


@pytest.fixture
def sqlite_database(tmp_path: Path) -> str:
    """The URL of a database of SQLite that has the tables and no row: for tables of cases that both databases share."""
    return put_tables(f"sqlite:///{tmp_path}/data/ledger.db")


@pytest.fixture
def secret_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put Stripe's key into the environment, where a collector's jobs look for it."""
    monkeypatch.setenv("STRIPE_SECRET_KEY", KEY["STRIPE_SECRET_KEY"])


@pytest.fixture(scope="module", autouse=True)
def runs_sqlite_in_the_loop(sqlite_without_threads: None) -> None:
    """Spare these tests the threads."""
