"""The cache of the directory on this host's disk: the customers and keys of the last version that was read completely.
An edge that starts while the hub is away serves from it.

SQLite with a write-ahead log: a look-up sees the previous version until the next one is complete, and a kill at any
moment leaves one of the two. Losing the file costs a read of the whole directory.

Deleted rows are overwritten (`secure_delete`), and `purge` empties the write-ahead log, which has earlier content. Then
an erased customer is in neither file.
"""

import os
import sqlite3
import threading
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from edgeproxy.base import log
from edgeproxy.config.directory import Document, FlagDocument, KeyOwner, parse_customer_lookup, parse_line
from edgeproxy.config.parsers import NAME
from edgeproxy.edge.directory.seal import PlainSeal, Seal

FILE = "directory.db"
LAYOUT_VERSION = 3
"""File layout; files with another are recreated."""
PURGE_LOCK_SECONDS = 0.2
"""Seconds that emptying the write-ahead log waits for readers and writers."""
LOCK_SECONDS = 10.0
"""Seconds that another supervisor on this state directory may take to write a version."""
DIGEST_BYTES = 32
JOURNAL_BYTES = 4 << 20
"""Bytes that the write-ahead log keeps on the disk. A version with all customers makes it as large as the file."""
CHANGED_NAMES_MAX = 1000
"""Changed customers that are listed by name; of more, only the fact is reported."""
CHANGED_KEYS_MAX = 100_000
"""Keys of changed customers that are listed."""

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
"""Columns `name`, `tier`, `digest` and `customer` are indexes of a seal (seal.py); it encrypts `said` and `keys`. A
customer's `said` has the name, the tier and the settings, a line each; a flag's, the name and the flag.
"""

PROOF = b"edgeproxy"
"""Text that table `seal` holds sealed, to verify the key."""

CacheError = sqlite3.Error
"""The disk is full, or does not answer as it should."""


class CachedVersion(NamedTuple):
    """The version in the file. Moments are Unix seconds."""

    token: str
    number: int
    pushed_at: float
    checked_at: float
    """Time of the hub's last confirmation; written from time to time."""
    customers: int
    keys: int
    hash: str = ""
    """Hash of its log line."""
    signed_at: float = 0.0
    """The newest time that was signed for it; written from time to time."""
    verified: bool = False
    """True if all of its content was signed by a key that was trusted then."""


class OutdatedVersionError(Exception):
    """Another supervisor has since written a version."""


class Changes(NamedTuple):
    """The differences between a version and the one before it."""

    names: set[str]
    """Customers that have changed."""
    digests: set[bytes]
    """Keys that they have or had."""
    tiers: Counter[str]
    """Customers that each tier has gained; negative if it has lost some."""


class Survey(NamedTuple):
    """The overlap and the differences of a version and the configuration files."""

    names: list[str]
    """Customers that the files have as well."""
    keys: list[bytes]
    """Keys that the files have as well."""
    tiers: dict[str, int]
    """Tiers that the files do not have, and the number of customers of each."""

    def follow(self, changes: Changes, overlap: tuple[list[str], list[bytes]], tiers: Collection[str]) -> "Survey":
        """Return the survey of the next version: `overlap` has those of the changed customers and keys that the files
        have, and `tiers` are the files' tiers.
        """
        unknown = Counter({tier: count for tier, count in changes.tiers.items() if tier not in tiers})
        unknown.update(self.tiers)
        return Survey(
            [*(name for name in self.names if name not in changes.names), *overlap[0]],
            [*(digest for digest in self.keys if digest not in changes.digests), *overlap[1]],
            {tier: count for tier, count in sorted(unknown.items()) if count},
        )


class DirectoryCache:
    """The file. Each call may take long, and belongs into a thread."""

    def __init__(self, state: Path, seal: Seal | None = None) -> None:
        """Open the file, or create it. Raises CacheError, or OSError."""
        self._path = state / FILE
        self._seal: Seal = seal or PlainSeal()
        self._lock = threading.Lock()
        """Lock that guards the connection. A thread continues after its caller stopped waiting, and closing the
        connection under it would crash the process.
        """
        try:
            self._db = self._open_database()
        except sqlite3.OperationalError:
            raise  # A fault of the disk, or a lock of another process: the file itself may be good.
        except sqlite3.DatabaseError as error:
            log.get_logger().error(
                "the cached directory is damaged, and made anew", file=str(self._path), why=str(error)
            )
            self._remove()
            self._db = self._open_database()

    def _open_database(self) -> sqlite3.Connection:
        """Open the file with its tables. A file of another layout is created again."""
        # SQLite would create the file with the permissions that the umask leaves.
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

    def recreate(self) -> None:
        """Replace the unreadable file by an empty one."""
        with self._lock:
            self._db.close()
            self._remove()
            self._db = self._open_database()

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()

    def fetch_version(self) -> CachedVersion | None:
        """Return the version of the file; None if there never was one."""
        with self._lock:
            return fetch_version(self._db)

    def find_owners(self, digests: Iterable[bytes]) -> dict[bytes, KeyOwner | None]:
        """Return the owner of each of these keys; None for a key without an owner."""
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
                    name, _, customer = unseal_customer(self._seal, row[0], row[1])
                    owners[digest] = KeyOwner(name, customer, self._seal.open(row[2], index).decode())
        return owners

    def _find_by_name(self, name: str) -> KeyOwner | None:
        index = compute_text_index(self._seal, name)
        row = self._db.execute("SELECT said FROM customers WHERE name = ?", (index,)).fetchone()
        return None if row is None else KeyOwner(name, unseal_customer(self._seal, index, row[0])[2], "{}")

    def find_customer(self, name: str) -> tuple[str, list[bytes]] | None:
        """Return a customer as JSON, and the digests of its keys; None if no customer has this name."""
        index = self._seal.index(name.encode())
        with self._lock:
            row = self._db.execute("SELECT said, keys FROM customers WHERE name = ?", (index,)).fetchone()
        if row is None:
            return None
        return unseal_customer(self._seal, index, row[0])[2], split_digests(self._seal.open(row[1], index))

    def fetch_flags(self) -> dict[str, str]:
        """Return all flags by name, in JSON."""
        with self._lock:
            rows = self._db.execute("SELECT name, said FROM flags").fetchall()
        flags = [self._seal.open(closed, name).decode().split("\n", 1) for name, closed in rows]
        return dict(flags)

    def record_check(self, at: float, signed_at: float) -> None:
        """Record that the version was the newest at this Unix second, and the newest signed time."""
        db = connect(self._path)
        try:
            db.execute("UPDATE version SET heard_at = ?, signed_at = max(signed_at, ?)", (at, signed_at))
        finally:
            db.close()

    def purge(self) -> bool:
        """Remove all replaced and deleted content from the files. Return False if a lock prevents that for now.

        Raises CacheError.
        """
        db = connect(self._path, PURGE_LOCK_SECONDS)
        try:
            # The write-ahead log still has the content that was replaced.
            busy, *_ = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        finally:
            db.close()
        return not busy

    def find_overlap(self, names: Iterable[str], digests: Iterable[bytes]) -> tuple[list[str], list[bytes]]:
        """Return the customers and keys among these that the version has."""
        customer, key = "SELECT 1 FROM customers WHERE name = ?", "SELECT 1 FROM keys WHERE digest = ?"
        index = self._seal.index
        db = connect(self._path)
        try:
            return (
                [name for name in names if db.execute(customer, (index(name.encode()),)).fetchone()],
                [digest for digest in digests if db.execute(key, (index(digest),)).fetchone()],
            )
        finally:
            db.close()

    def survey(self, names: Iterable[str], digests: Iterable[bytes], tiers: Collection[str]) -> Survey:
        """Compare the version with the customers, keys and tiers of the files. It reads all customers."""
        overlap = self.find_overlap(names, digests)
        # SQLite takes `name` and `said` from one row of each group.
        grouped = "SELECT tier, COUNT(*), name, said FROM customers GROUP BY tier"
        tier_indexes = {self._seal.index(tier.encode()) for tier in tiers}
        db = connect(self._path)
        try:
            unknown = {
                unseal_customer(self._seal, name, sealed)[1]: count
                for tier, count, name, sealed in db.execute(grouped)
                if tier not in tier_indexes
            }
            return Survey(*overlap, dict(sorted(unknown.items())))
        finally:
            db.close()

    def begin_version(self, token: str | None) -> "VersionWriter":
        """Begin to write the successor of the version with this token (None: the first version).

        Raises OutdatedVersionError if that version has been replaced, and CacheError.
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
    """A version that is being written. Readers see none of it before `commit`."""

    def __init__(self, db: sqlite3.Connection, seal: Seal) -> None:
        self._db = db
        self._seal = seal
        self._lock = threading.Lock()
        """Lock as in DirectoryCache."""
        self._whole = False
        self._changed: set[str] = set()
        self._digests: set[bytes] = set()
        """Keys that changed customers have or had."""
        self._tiers: Counter[str] = Counter()
        """Customers that each tier has gained; negative if it has lost some."""

    @property
    def changed(self) -> "Changes | None":
        """The customers that have changed; None if they are too many to be listed."""
        is_listed = len(self._changed) <= CHANGED_NAMES_MAX and len(self._digests) <= CHANGED_KEYS_MAX
        return Changes(self._changed, self._digests, self._tiers) if is_listed else None

    def begin_whole(self) -> None:
        """Begin a version with all customers: customers that are not in it are removed at its end."""
        with self._lock:
            self._whole = True
            self._db.execute("DELETE FROM flags")
            self._db.execute("DROP TABLE IF EXISTS temp.came")
            self._db.execute("CREATE TEMP TABLE came (name BLOB PRIMARY KEY) WITHOUT ROWID")

    def write_lines(self, lines: Sequence[bytes]) -> None:
        """Write customers and flags. Raises ValueError if a line is neither."""
        with self._lock:
            read = [_parse_line(line) for line in lines]
            customers = [one for one in read if isinstance(one, Document)]
            for one in read:
                if isinstance(one, Document):
                    self._write_customer(one)
                else:
                    name = compute_text_index(self._seal, one.name)
                    closed = self._seal.close(f"{one.name}\n{one.flag}".encode(), name)
                    self._db.execute("INSERT OR REPLACE INTO flags VALUES (?, ?)", (name, closed))
            if self._whole:
                self._db.executemany(
                    "INSERT OR IGNORE INTO came VALUES (?)",
                    [(compute_text_index(self._seal, customer.name),) for customer in customers],
                )

    def _write_customer(self, document: Document) -> None:
        db, seal, name = self._db, self._seal, compute_text_index(self._seal, document.name)
        row = db.execute("SELECT said, keys FROM customers WHERE name = ?", (name,)).fetchone()
        before = None if row is None else (unseal_customer(seal, name, row[0])[1:], seal.open(row[1], name))
        joined = b"".join(document.keys)
        is_same = before == ((document.tier, document.customer), joined)
        # Another customer may have taken over a key since.
        if is_same and all(self._find_key(digest) == (name, closed) for digest, closed in document.keys.items()):
            return
        self._record_change(document.name, document.keys)
        if before is not None:
            digests = split_digests(before[1])
            self._record_change(document.name, digests)
            self._tiers[before[0][0]] -= 1
            self._delete_keys(name, [digest for digest in digests if digest not in document.keys])
        if document.customer is None:
            db.execute("DELETE FROM customers WHERE name = ?", (name,))
            return
        self._tiers[document.tier] += 1
        closed = seal.close(f"{document.name}\n{document.tier}\n{document.customer}".encode(), name)
        row = (name, compute_text_index(seal, document.tier), closed, seal.close(joined, name))
        db.execute("INSERT OR REPLACE INTO customers VALUES (?, ?, ?, ?)", row)
        # Reading a key takes less than writing it, and most keys stay as they are.
        rows = [
            (index, name, seal.close(key.encode(), index))
            for index, key in (
                (seal.index(digest), key)
                for digest, key in document.keys.items()
                if before is None or self._find_key(digest) != (name, key)
            )
        ]
        db.executemany("INSERT OR REPLACE INTO keys VALUES (?, ?, ?)", rows)

    def _record_change(self, name: str, digests: Iterable[bytes]) -> None:
        """Record a changed customer with these keys, until there are too many."""
        if len(self._changed) <= CHANGED_NAMES_MAX and len(self._digests) <= CHANGED_KEYS_MAX:
            self._changed.add(name)
            self._digests.update(digests)

    def _find_key(self, digest: bytes) -> tuple[bytes, str] | None:
        """Return the index of the customer that has a key, and the key's entry."""
        index = self._seal.index(digest)
        row = self._db.execute("SELECT customer, said FROM keys WHERE digest = ?", (index,)).fetchone()
        return None if row is None else (row[0], self._seal.open(row[1], index).decode())

    def _delete_keys(self, name: bytes, digests: Iterable[bytes]) -> None:
        """Delete keys of the customer with this index, except keys that another customer has taken over."""
        gone = [(self._seal.index(digest), name) for digest in digests]
        self._db.executemany("DELETE FROM keys WHERE digest = ? AND customer = ?", gone)

    def end_whole(self) -> None:
        """Remove the customers that a whole version did not have."""
        query = "SELECT name, said, keys FROM customers WHERE name NOT IN (SELECT name FROM came)"
        with self._lock:
            for name, sealed, keys in self._db.execute(query).fetchall():
                customer, tier, _ = unseal_customer(self._seal, name, sealed)
                digests = split_digests(self._seal.open(keys, name))
                self._record_change(customer, digests)
                self._tiers[tier] -= 1
                self._delete_keys(name, digests)
                self._db.execute("DELETE FROM customers WHERE name = ?", (name,))
            self._whole = False

    def commit(self, held: CachedVersion) -> None:
        """Make this the version of the file."""
        with self._lock:
            self._db.execute("DELETE FROM version")
            self._db.execute("INSERT INTO version VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", held)
            self._db.execute("COMMIT")
            self._db.close()

    def discard(self) -> None:
        """Roll back everything."""
        with self._lock:
            self._db.close()


def _parse_line(line: bytes) -> Document | FlagDocument:
    """Return the document of a line, which may have been altered. Raises ValueError if it is not a document."""
    try:
        one = parse_line(line)
        fits = NAME.fullmatch(one.name) and (
            isinstance(one, FlagDocument)
            or (isinstance(one.tier, str) and all(len(key) == DIGEST_BYTES for key in one.keys))
        )
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"a line of the directory is not understood: {error!r}") from error
    if not fits:
        raise ValueError("a line of the directory has a name, a tier or a key that is none")
    return one


def is_damage_error(error: Exception) -> bool:
    """Return whether an error shows that the file is damaged or gone, so that waiting does not help."""
    return type(error) is sqlite3.DatabaseError or (
        isinstance(error, sqlite3.OperationalError) and str(error).startswith("no such table")
    )


def connect(path: Path, timeout: float = LOCK_SECONDS) -> sqlite3.Connection:
    """Open a connection where every statement is a transaction unless one was begun."""
    db = sqlite3.connect(path, timeout=timeout, isolation_level=None, check_same_thread=False)
    try:
        # Content of deleted customers must not stay in free pages of the file.
        db.execute("PRAGMA secure_delete = ON")
        # Look-ups go on while a version is written.
        db.execute("PRAGMA journal_mode = WAL")
        # A power cut may lose the last version, which is then read again. It does not damage the file.
        db.execute("PRAGMA synchronous = NORMAL")
        db.execute(f"PRAGMA journal_size_limit = {JOURNAL_BYTES}")
    except BaseException:
        db.close()
        raise
    return db


def fetch_version(db: sqlite3.Connection) -> CachedVersion | None:
    """Return the version in a file; None if there is none yet."""
    columns = "token, number, pushed_at, heard_at, customers, keys, hash, signed_at, verified"
    row = db.execute(f"SELECT {columns} FROM version").fetchone()
    return None if row is None else CachedVersion(*row)._replace(verified=bool(row[-1]))


def compute_text_index(seal: Seal, text: str) -> bytes:
    """Return the index of a text."""
    return seal.index(text.encode())


def unseal_customer(seal: Seal, row: bytes, written: bytes) -> tuple[str, str, str]:
    """Return the name and the tier of a customer, and the rest as JSON."""
    name, tier, customer = seal.open(written, row).decode().split("\n", 2)
    return name, tier, customer


def split_digests(digests: bytes) -> list[bytes]:
    """Split digests that were joined."""
    return [digests[at : at + DIGEST_BYTES] for at in range(0, len(digests), DIGEST_BYTES)]
