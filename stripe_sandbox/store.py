"""The SQLite file of the sandbox. A killed process leaves it consistent."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stripe_sandbox.refusal import ApiError

TABLES = """
CREATE TABLE IF NOT EXISTS objects (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, id TEXT NOT NULL, live INTEGER NOT NULL,
    deleted INTEGER NOT NULL DEFAULT 0, body TEXT NOT NULL, UNIQUE (id, kind, live)
);
CREATE INDEX IF NOT EXISTS objects_listed ON objects (kind, live, seq);
CREATE INDEX IF NOT EXISTS objects_customer ON objects (kind, json_extract(body, '$.customer'));
CREATE INDEX IF NOT EXISTS objects_invoice ON objects (kind, json_extract(body, '$.invoice'));
CREATE INDEX IF NOT EXISTS objects_subscription ON objects (kind, json_extract(body, '$.subscription'));
CREATE TABLE IF NOT EXISTS timers (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, clock TEXT NOT NULL, at INTEGER NOT NULL, what TEXT NOT NULL,
    id TEXT NOT NULL, live INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS timers_due ON timers (clock, at, seq);
CREATE TABLE IF NOT EXISTS journal (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, at INTEGER NOT NULL, live INTEGER NOT NULL, what TEXT NOT NULL,
    id TEXT NOT NULL, request TEXT, details TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS journal_of ON journal (id, what, at);
CREATE TABLE IF NOT EXISTS idempotency (
    live INTEGER NOT NULL, key TEXT NOT NULL, digest TEXT NOT NULL, request TEXT NOT NULL, created INTEGER NOT NULL,
    status INTEGER NOT NULL, body BLOB NOT NULL, PRIMARY KEY (live, key)
);
CREATE TABLE IF NOT EXISTS usage (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, live INTEGER NOT NULL, identifier TEXT NOT NULL, event_name TEXT NOT NULL,
    payload TEXT NOT NULL, at INTEGER NOT NULL, created INTEGER NOT NULL, due INTEGER NOT NULL, state TEXT NOT NULL,
    customer TEXT, meter TEXT, value INTEGER, error TEXT
);
CREATE INDEX IF NOT EXISTS usage_identifier ON usage (live, identifier);
CREATE INDEX IF NOT EXISTS usage_counted ON usage (meter, customer, at, value) WHERE state = 'counted';
CREATE INDEX IF NOT EXISTS usage_waiting ON usage (due) WHERE state = 'waiting';
CREATE TABLE IF NOT EXISTS deliveries (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, event TEXT NOT NULL, endpoint TEXT NOT NULL, live INTEGER NOT NULL,
    due REAL NOT NULL, attempt INTEGER NOT NULL DEFAULT 0, state TEXT NOT NULL, forged INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS deliveries_due ON deliveries (due) WHERE state = 'waiting';
CREATE INDEX IF NOT EXISTS deliveries_event ON deliveries (event);
CREATE TABLE IF NOT EXISTS settings (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""


def connect(file: Path | str) -> sqlite3.Connection:
    """Open the file, or create it for its owner alone; raises sqlite3.Error."""
    if str(file) != ":memory:":
        try:
            # It holds webhook secrets and people's addresses. SQLite's files beside it get its mode.
            os.close(os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        except OSError as error:
            raise sqlite3.OperationalError(error.strerror) from error
    connection = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
    # The kernel holds committed data, so a killed process loses nothing; only a power cut could.
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = OFF")
    connection.executescript(TABLES)
    if "error" not in [name for _, name, *_ in connection.execute("PRAGMA table_info(usage)")]:
        connection.execute("ALTER TABLE usage ADD COLUMN error TEXT")  # A file of an older version.
    return connection


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Commit the changes within, or roll them back after an error, unless it is a refusal that commits."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException as error:
        connection.execute("COMMIT" if isinstance(error, ApiError) and error.commits else "ROLLBACK")
        raise
    connection.execute("COMMIT")
