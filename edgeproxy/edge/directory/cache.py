"""The directory on this host's disk: customers and keys by what they are looked up by, in the last version that was
read whole. It is in the state directory, so an edge that starts while the hub is away knows who it knew.

SQLite with a write-ahead log: who looks somebody up sees the version before until the next one is complete, and a kill
at any moment leaves one of the two. Losing it costs a read of the whole directory.
"""

import os
import sqlite3
import threading
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from edgeproxy.base import log
from edgeproxy.config.directory import Document, FlagDocument, KeyOwner, parse_customer_lookup, parse_line
from edgeproxy.config.parsers import NAME
from edgeproxy.edge.directory.seal import PlainSeal, Seal

FILE = "directory.db"
LAYOUT_VERSION = 3
"""Of the file. One that has another is made anew."""
LOCK_SECONDS = 10.0
"""Seconds that another supervisor on the same state directory may take to write a version."""
DIGEST_BYTES = 32
JOURNAL_BYTES = 4 << 20
"""Bytes that the write-ahead log keeps on the disk; a version with everybody in it makes it as large as the file."""
CHANGED_NAMES_MAX = 1000
"""Customers who are named when they have changed; of more it is only said that there are some."""

TABLES = """
CREATE TABLE IF NOT EXISTS version (
    token TEXT, number INTEGER, pushed_at REAL, heard_at REAL, customers INTEGER, keys INTEGER,
    hash TEXT, signed_at REAL, verified INTEGER);
CREATE TABLE IF NOT EXISTS customers (
    name BLOB PRIMARY KEY, tier BLOB, said BLOB, keys BLOB) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS keys (
    digest BLOB PRIMARY KEY, customer BLOB, said BLOB) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS flags (name BLOB PRIMARY KEY, said BLOB) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS seal (proof BLOB);
"""
"""Columns `name`, `tier`, `digest` and `customer` are indexes of a seal (seal.py), `said` and `keys` closed by it. A
customer's `said` is the name, the tier and what is said of them, a line each; a flag's, the name and what is said.
"""

PROOF = b"edgeproxy"
"""What `seal` has, closed: who cannot open it has another key."""

CacheError = sqlite3.Error
"""The disk is full, or does not answer as it should."""


class CachedVersion(NamedTuple):
    """The version that is here. Moments are Unix seconds."""

    token: str
    number: int
    pushed_at: float
    heard_at: float
    """When the hub last had it as what is so; written now and then."""
    customers: int
    keys: int
    hash: str = ""
    """Of its line in the log."""
    signed_at: float = 0.0
    """The newest time that was signed for it; written now and then."""
    verified: bool = False
    """Whether all that it says was signed by who was trusted then."""


class OutdatedVersionError(Exception):
    """Another supervisor has written a version meanwhile."""


class Survey(NamedTuple):
    """What a version means to a configuration."""

    names: list[str]
    """Customers that the files have as well."""
    keys: list[bytes]
    """Keys that the files have as well."""
    tiers: dict[str, int]
    """Tiers that the files do not have, and how many customers have each."""


class DirectoryCache:
    """The file. Whatever is done with it may take long, and belongs into a thread."""

    def __init__(self, state: Path, seal: Seal | None = None) -> None:
        """Raises CacheError, or OSError."""
        self._path = state / FILE
        self._seal: Seal = seal or PlainSeal()
        self._lock = threading.Lock()
        """Who holds it uses the connection. A thread goes on when nobody waits for it any more, and a connection that
        is closed under it ends the process."""
        try:
            self._db = self._open_database()
        except sqlite3.OperationalError:
            raise  # The disk, or another one who holds it: what is there may be well.
        except sqlite3.DatabaseError as error:
            log.get_logger().error(
                "the cached directory is damaged, and made anew", file=str(self._path), why=str(error)
            )
            self._remove()
            self._db = self._open_database()

    def _open_database(self) -> sqlite3.Connection:
        """The file with its tables, those of another layout made anew."""
        os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600))
        db = connect(self._path)
        try:
            expected = LAYOUT_VERSION + (self._seal.layout << 16)
            (layout,) = db.execute("PRAGMA user_version").fetchone()
            if layout not in (0, expected):
                db.close()
                self._remove()
                return self._open_database()
            if layout != expected:
                proof = f"INSERT INTO seal VALUES (x'{self._seal.close(PROOF, b'').hex()}');"
                db.executescript(f"BEGIN IMMEDIATE; {TABLES} {proof} PRAGMA user_version = {expected}; COMMIT")
            row = db.execute("SELECT proof FROM seal").fetchone()
            if row is None or self._seal.open(row[0], b"") != PROOF:
                raise sqlite3.DatabaseError("the file has no seal")
        except BaseException:
            db.close()
            raise
        return db

    def _remove(self) -> None:
        for suffix in ("", "-wal", "-shm"):
            Path(f"{self._path}{suffix}").unlink(missing_ok=True)

    def remake(self) -> None:
        """What is there cannot be read: begin with nothing."""
        with self._lock:
            self._db.close()
            self._remove()
            self._db = self._open_database()

    def close(self) -> None:
        """It is needed no more."""
        with self._lock:
            self._db.close()

    def held(self) -> CachedVersion | None:
        """The version; None where there never was one."""
        with self._lock:
            return fetch_version(self._db)

    def find(self, digests: Iterable[bytes]) -> dict[bytes, KeyOwner | None]:
        """Whose these keys are; None where nobody has one."""
        sql = "SELECT c.name, c.said, k.said FROM keys k JOIN customers c ON c.name = k.customer WHERE k.digest = ?"
        owners: dict[bytes, KeyOwner | None] = {}
        with self._lock:
            for digest in digests:
                if (name := parse_customer_lookup(digest)) is not None:
                    owners[digest] = self._find_by_name(name)
                    continue
                index = self._seal.index(digest)
                row = self._db.execute(sql, (index,)).fetchone()
                if row is None:
                    owners[digest] = None
                else:
                    name, _, said = unseal_customer(self._seal, row[0], row[1])
                    owners[digest] = KeyOwner(name, said, self._seal.open(row[2], index).decode())
        return owners

    def _find_by_name(self, name: str) -> KeyOwner | None:
        index = compute_text_index(self._seal, name)
        row = self._db.execute("SELECT said FROM customers WHERE name = ?", (index,)).fetchone()
        return None if row is None else KeyOwner(name, unseal_customer(self._seal, index, row[0])[2], "{}")

    def customer(self, name: str) -> tuple[str, list[bytes]] | None:
        """What is said of a customer, and the digests of the keys; None where there is none of this name."""
        index = self._seal.index(name.encode())
        with self._lock:
            row = self._db.execute("SELECT said, keys FROM customers WHERE name = ?", (index,)).fetchone()
        if row is None:
            return None
        return unseal_customer(self._seal, index, row[0])[2], split_digests(self._seal.open(row[1], index))

    def flags(self) -> dict[str, str]:
        """All flags, by name, in JSON."""
        with self._lock:
            rows = self._db.execute("SELECT name, said FROM flags").fetchall()
        flags = [self._seal.open(closed, name).decode().split("\n", 1) for name, closed in rows]
        return dict(flags)

    def heard(self, at: float, signed_at: float) -> None:
        """At this moment this is what is so, and `signed_at` the newest signed time."""
        db = connect(self._path)
        try:
            db.execute("UPDATE version SET heard_at = ?, signed_at = max(signed_at, ?)", (at, signed_at))
        finally:
            db.close()

    def survey(self, names: Iterable[str], digests: Iterable[bytes], tiers: Collection[str]) -> Survey:
        """What there is beside the customers, keys and tiers of the files."""
        customer, key = "SELECT 1 FROM customers WHERE name = ?", "SELECT 1 FROM keys WHERE digest = ?"
        grouped = "SELECT tier, COUNT(*), name, said FROM customers GROUP BY tier"  # Of one of each, as SQLite has it.
        tier_indexes, index = {self._seal.index(tier.encode()) for tier in tiers}, self._seal.index
        db = connect(self._path)
        try:
            unknown = {
                unseal_customer(self._seal, name, said)[1]: count
                for tier, count, name, said in db.execute(grouped)
                if tier not in tier_indexes
            }
            return Survey(
                [name for name in names if db.execute(customer, (index(name.encode()),)).fetchone()],
                [digest for digest in digests if db.execute(key, (index(digest),)).fetchone()],
                dict(sorted(unknown.items())),
            )
        finally:
            db.close()

    def write(self, token: str | None) -> "VersionWriter":
        """Begin to write what follows the version of this token (None: there is none).

        Raises OutdatedVersionError where that is not the version here any more, and CacheError.
        """
        db = connect(self._path)
        try:
            db.execute("BEGIN IMMEDIATE")
            there = fetch_version(db)
            if (None if there is None else there.token) != token:
                raise OutdatedVersionError("another supervisor has read the directory meanwhile")
        except BaseException:
            db.close()
            raise
        return VersionWriter(db, self._seal)


class VersionWriter:
    """A version that is being written: nobody sees anything of it before `conclude`, or ever where it is dropped."""

    def __init__(self, db: sqlite3.Connection, seal: Seal) -> None:
        self._db = db
        self._seal = seal
        self._lock = threading.Lock()
        """As that of Cache."""
        self._whole = False
        self._changed: set[str] = set()

    @property
    def changed(self) -> set[str] | None:
        """The customers who are not as they were; None where they are too many to be named."""
        return None if len(self._changed) > CHANGED_NAMES_MAX else self._changed

    def begin_whole(self) -> None:
        """What comes is all that there is: who does not come is gone."""
        with self._lock:
            self._whole = True
            self._db.execute("DELETE FROM flags")
            self._db.execute("DROP TABLE IF EXISTS temp.came")
            self._db.execute("CREATE TEMP TABLE came (name BLOB PRIMARY KEY) WITHOUT ROWID")

    def take(self, lines: Sequence[bytes]) -> None:
        """Take in these lines; raises ValueError where one is none."""
        with self._lock:
            read = [_parse_line(line) for line in lines]
            customers = [one for one in read if isinstance(one, Document)]
            for one in read:
                if isinstance(one, Document):
                    self._take(one)
                else:
                    name = compute_text_index(self._seal, one.name)
                    closed = self._seal.close(f"{one.name}\n{one.flag}".encode(), name)
                    self._db.execute("INSERT OR REPLACE INTO flags VALUES (?, ?)", (name, closed))
            if self._whole:
                self._db.executemany(
                    "INSERT OR IGNORE INTO came VALUES (?)",
                    [(compute_text_index(self._seal, one.name),) for one in customers],
                )

    def _take(self, document: Document) -> None:
        db, seal, name = self._db, self._seal, compute_text_index(self._seal, document.name)
        row = db.execute("SELECT said, keys FROM customers WHERE name = ?", (name,)).fetchone()
        before = None if row is None else (unseal_customer(seal, name, row[0])[1:], seal.open(row[1], name))
        joined = b"".join(document.keys)
        is_same = before == ((document.tier, document.customer), joined)
        if is_same and all(self._find_key(digest) == (name, closed) for digest, closed in document.keys.items()):
            return
        if len(self._changed) <= CHANGED_NAMES_MAX:
            self._changed.add(document.name)
        if before is not None:
            self._delete_keys(name, [digest for digest in split_digests(before[1]) if digest not in document.keys])
        if document.customer is None:
            db.execute("DELETE FROM customers WHERE name = ?", (name,))
            return
        closed = seal.close(f"{document.name}\n{document.tier}\n{document.customer}".encode(), name)
        row = (name, compute_text_index(seal, document.tier), closed, seal.close(joined, name))
        db.execute("INSERT OR REPLACE INTO customers VALUES (?, ?, ?, ?)", row)
        rows = [
            (index, name, seal.close(key.encode(), index))
            for index, key in ((seal.index(digest), key) for digest, key in document.keys.items())
        ]
        db.executemany("INSERT OR REPLACE INTO keys VALUES (?, ?, ?)", rows)

    def _find_key(self, digest: bytes) -> tuple[bytes, str] | None:
        """Whose a key is, by the index of the name, and what is said of it."""
        index = self._seal.index(digest)
        row = self._db.execute("SELECT customer, said FROM keys WHERE digest = ?", (index,)).fetchone()
        return None if row is None else (row[0], self._seal.open(row[1], index).decode())

    def _delete_keys(self, name: bytes, digests: Iterable[bytes]) -> None:
        """These are the keys of the customer of this index no more, unless another one's line has taken them over."""
        gone = [(self._seal.index(digest), name) for digest in digests]
        self._db.executemany("DELETE FROM keys WHERE digest = ? AND customer = ?", gone)

    def end_whole(self) -> None:
        """All that there is has come."""
        query = "SELECT name, said, keys FROM customers WHERE name NOT IN (SELECT name FROM came)"
        with self._lock:
            for name, said, keys in self._db.execute(query).fetchall():
                if len(self._changed) <= CHANGED_NAMES_MAX:
                    self._changed.add(unseal_customer(self._seal, name, said)[0])
                self._delete_keys(name, split_digests(self._seal.open(keys, name)))
                self._db.execute("DELETE FROM customers WHERE name = ?", (name,))
            self._whole = False

    def conclude(self, held: CachedVersion) -> None:
        """All of it was taken in: from here on it is what is so."""
        with self._lock:
            self._db.execute("DELETE FROM version")
            self._db.execute("INSERT INTO version VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", held)
            self._db.execute("COMMIT")
            self._db.close()

    def drop(self) -> None:
        """Nothing of it counts."""
        with self._lock:
            self._db.close()


def _parse_line(line: bytes) -> Document | FlagDocument:
    """What a line says. It is read before it is known whether it is what was pushed: raises ValueError where it is not
    such a line."""
    try:
        one = parse_line(line)
        fits = NAME.fullmatch(one.name) and (
            isinstance(one, FlagDocument)
            or (isinstance(one.tier, str) and all(len(each) == DIGEST_BYTES for each in one.keys))
        )
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"a line of the directory is not understood: {error!r}") from error
    if not fits:
        raise ValueError("a line of the directory has a name, a tier or a key that is none")
    return one


def is_damage_error(failure: Exception) -> bool:
    """Whether it says that what is in the file makes no sense, or is gone with the file, and waiting will not help."""
    return type(failure) is sqlite3.DatabaseError or (
        isinstance(failure, sqlite3.OperationalError) and str(failure).startswith("no such table")
    )


def connect(path: Path) -> sqlite3.Connection:
    """A connection on which every statement is a transaction, unless one was begun."""
    db = sqlite3.connect(path, timeout=LOCK_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        db.execute(f"PRAGMA journal_size_limit = {JOURNAL_BYTES}")
    except BaseException:
        db.close()
        raise
    return db


def fetch_version(db: sqlite3.Connection) -> CachedVersion | None:
    """The version in a file."""
    row = db.execute(f"SELECT {', '.join(CachedVersion._fields)} FROM version").fetchone()
    return None if row is None else CachedVersion(*row)._replace(verified=bool(row[-1]))


def compute_text_index(seal: Seal, text: str) -> bytes:
    """The index of a text."""
    return seal.index(text.encode())


def unseal_customer(seal: Seal, row: bytes, written: bytes) -> tuple[str, str, str]:
    """The name and tier of a customer, and what is said of them."""
    name, tier, said = seal.open(written, row).decode().split("\n", 2)
    return name, tier, said


def split_digests(digests: bytes) -> list[bytes]:
    """The digests that were joined."""
    return [digests[at : at + DIGEST_BYTES] for at in range(0, len(digests), DIGEST_BYTES)]
