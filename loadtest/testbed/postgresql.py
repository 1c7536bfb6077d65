"""A real PostgreSQL server that belongs to the tests, on its own port."""

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from functools import cache
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from edgeproxy.collector.database.row_security import roles_sql
from loadtest.testbed.ports import HOST, Ports
from loadtest.testbed.tables_ready import PREPARED, make_tables
from loadtest.testbed.waiting import until

OLDEST = 15
PLACES = "/usr/lib/postgresql/*/bin"
"""The directories of Debian and Ubuntu, one per version."""
MEMORY = Path("/dev/shm")
"""A file system in memory: creating and removing the hundreds of files of each database takes half the CPU there."""
MEMORY_FREE_MIN = 8 << 30
"""Bytes that must be free, because all processes of a test run may check at the same time. Containers often have less:
then the files are on disk.
"""
OWNER = "edgeproxy"
"""The owner of the databases, as in production: no superuser, because row-level security does not apply to
superusers.
"""
TEMPLATE = "tables"
"""The database with the tables that others are copies of."""
USER = "postgres"
"""The user of the server's processes if tests run as root: PostgreSQL refuses to start as root."""


def find_memory() -> Path | None:
    """Return MEMORY if enough of it is free, or else None."""
    has_room = MEMORY.is_dir() and shutil.disk_usage(MEMORY).free >= MEMORY_FREE_MIN
    return MEMORY if has_room else None


@cache
def programs() -> Path | None:
    """Return the directory of the programs of a recent PostgreSQL, or None."""
    named = shutil.which("postgres")
    found = [Path(named).resolve().parent] if named else []
    found += sorted(Path("/").glob(PLACES.lstrip("/")), key=lambda place: place.parent.name, reverse=True)
    for place in found:
        if not (place / "initdb").exists():
            continue
        said = subprocess.run([place / "postgres", "--version"], capture_output=True, text=True, check=True).stdout
        if int(said.split()[2].partition(".")[0]) >= OLDEST and _owner() is not None:
            return place
    return None


@cache
def _owner() -> tuple[int, int] | None:
    """Return the user and group of the server; None if the tests run as root and the user `postgres` is missing."""
    if os.getuid() != 0:
        return os.getuid(), os.getgid()
    try:
        known = pwd.getpwnam(USER)
    except KeyError:
        return None
    return known.pw_uid, known.pw_gid


def _initialize(folder: Path) -> None:
    """Put the data of a new server into the folder `new` of this one."""
    directory, owner = programs(), _owner()
    assert directory is not None, "the fixture skips where there is none"
    assert owner is not None
    os.chown(folder, *owner)
    options = ("--auth=trust", "--encoding=UTF8", "--locale=C", "--username=postgres", "--no-sync")
    command: list[str | Path] = [directory / "initdb", *options, "-D", folder / "new"]
    subprocess.run(command, cwd=folder, capture_output=True, check=True, user=owner[0], group=owner[1])


@cache
def _make_initial() -> TemporaryDirectory[str]:
    """Return a folder with the data of a new server, which each server copies: initdb takes a second of CPU."""
    folder = TemporaryDirectory(prefix="edgeproxy-initdb-", dir=find_memory(), ignore_cleanup_errors=True)
    _initialize(Path(folder.name))
    return folder


def prepare_data(folder: Path) -> None:
    """Put the data of a new server into the folder `new`, and of one with a database of tables into `filled`."""
    _initialize(folder)
    with contextlib.closing(Postgresql(in_memory=True)) as server:
        server._make_template()
        server.stop()
        server._run("/bin/cp", "-a", "data", f"{folder}/filled")


class Postgresql:
    """A running server. Any process on this host may connect to it.

    Only a `durable` server waits for the disk, and only a server that `archives` copies its WAL. `in_memory` puts
    its files in MEMORY if there is room.
    """

    def __init__(
        self,
        *,
        durable: bool = False,
        archives: bool = False,
        in_memory: bool = False,
        filled: bool = False,
        primary: "Postgresql | None" = None,
        lag_seconds: int = 0,
    ) -> None:
        """Start a server. With a `primary` it is a standby, which applies changes so many seconds later.

        A `filled` one has a database with the tables from its start, if the test run has prepared one.
        """
        self._settings = [f"fsync={'on' if durable else 'off'}"]
        if in_memory:  # Of the many databases of a test run another one would be looked at each second.
            self._settings.append("autovacuum=off")
        if archives:
            self._settings += ["archive_mode=on", "archive_command=test ! -e ../wal/%f && cp %p ../wal/%f"]
        found, owner = programs(), _owner()
        assert found is not None, "the fixture skips where there is none"
        assert owner is not None
        self._programs, self._owner = found, owner
        self._ports = Ports(1)
        self.port: int = self._ports.numbers[0]
        self._numbers = count(1)
        prepared = os.environ.get(PREPARED)
        self._has_template = filled and prepared is not None
        """Whether the database TEMPLATE is there."""
        # Not in a directory of pytest: the server's user could not enter it.
        place = find_memory() if in_memory else None
        self._strategy = "file_copy" if place else "wal_log"
        """How databases are copied: as files, each synced if it is on disk, or page by page."""
        self._kept = TemporaryDirectory(prefix="edgeproxy-postgresql-", dir=place, ignore_cleanup_errors=True)
        self._folder = Path(self._kept.name)
        self.data, self.wal, self.backups = (self._folder / name for name in ("data", "wal", "backups"))
        for folder in (self.wal, self.backups):
            folder.mkdir()
        if os.getuid() == 0:
            for folder in (self._folder, self.wal, self.backups):
                os.chown(folder, *owner)
        if primary is None:
            initial = f"{prepared or _make_initial().name}/{'filled' if self._has_template else 'new'}"
            self._run("/bin/cp", "-a", initial, "data")
        else:
            self._settings += [f"recovery_min_apply_delay={lag_seconds}s"]
            at = ("-h", HOST, "-p", str(primary.port), "-U", "postgres")
            self._run("pg_basebackup", "--checkpoint=fast", "--no-sync", "--write-recovery-conf", *at, "-D", "data")
        self.start()
        if primary is None and not self._has_template:
            self.ask(f"CREATE ROLE {OWNER} LOGIN CREATEROLE")

    def start(self) -> None:
        """Start the server on its existing data. Returns once it accepts connections."""
        # Just after SIGKILL, child processes of the old server may still exist; a new server exits at once then.
        until(self._starts, "PostgreSQL takes connections", seconds=60)

    def _starts(self) -> bool:
        self._launch()
        until(lambda: self._server.poll() is not None or self._answers(), "PostgreSQL has started", seconds=60)
        return self._server.poll() is None

    def _launch(self) -> None:
        with (self._folder / "log").open("ab") as log:
            command: list[str | Path] = [
                *(self._programs / "postgres", "-D", "data", "-p", str(self.port)),
                *("-c", f"listen_addresses={HOST}", "-c", "unix_socket_directories="),
                *("-c", "shared_buffers=64MB", "-c", "max_wal_size=1GB"),
                *(f"--{setting}" for setting in self._settings),
            ]
            self._server = subprocess.Popen(
                command,
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                **self.as_owner(),
            )

    def database(self) -> str:
        """Create a database with the collector's tables. Returns its URL."""
        if not self._has_template:
            self._make_template()
        return self.empty_database(f"--template={TEMPLATE}", f"--strategy={self._strategy}")

    def database_of_owner(self) -> str:
        """Create a database whose tables belong to another role than the URL's user. Returns its URL."""
        url, owner = self.empty_database_of_owner()
        make_tables(owner, "edgeproxy_login")
        return url

    def empty_database_of_owner(self) -> tuple[str, str]:
        """Create an empty database. Returns its URLs for a login role and for the future owner of the tables."""
        for user in ("edgeproxy_owner", "edgeproxy_login"):
            # Roles belong to the whole server, so another test may have created them.
            if not self.ask(f"SELECT 1 FROM pg_roles WHERE rolname = '{user}'"):
                self.ask(f"CREATE ROLE {user} LOGIN")
                self.ask(roles_sql(user))
        url = self.empty_database("-O", "edgeproxy_owner")
        login, owner = (url.replace(f"//{OWNER}@", f"//edgeproxy_{name}@") for name in ("login", "owner"))
        return login, owner

    def empty_database(self, *options: str) -> str:
        """Create an empty database. Returns its URL."""
        return self._create(f"ledger{next(self._numbers)}", *options)

    def _make_template(self) -> None:
        make_tables(self._create(TEMPLATE))
        self._has_template = True

    def _create(self, name: str, *options: str) -> str:
        self._run("createdb", "-h", HOST, "-p", str(self.port), "-U", "postgres", "-O", OWNER, *options, name)
        return f"postgresql://{OWNER}@{HOST}:{self.port}/{name}"

    def cpu(self) -> float:
        """Return the seconds of CPU of the server and all its child processes, ended ones included."""
        own = str(self._server.pid)
        found = {}
        for place in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                found[place.parent.name] = place.read_text().rpartition(")")[2].split()
        ticks = [sum(map(int, fields[11:13])) for pid, fields in found.items() if own in (pid, fields[1])]
        ended = sum(map(int, found[own][13:15]))
        return (sum(ticks) + ended) / os.sysconf("SC_CLK_TCK")

    def dump(self, url: str, *options: str) -> Path:
        """Back up a database with pg_dump, as its user."""
        file = self._folder / f"{url.rpartition('/')[2]}.dump"
        self._run("pg_dump", "--format=custom", *options, f"--file={file}", url)
        return file

    def restore(self, file: Path, url: str) -> None:
        """Restore a backup into an empty database."""
        self._run("pg_restore", "--exit-on-error", "--no-owner", f"--dbname={url}", str(file))

    def base_backup(self) -> Path:
        """Back up the whole server with pg_basebackup. The name is the time of completion."""
        at = ("-h", HOST, "-p", str(self.port), "-U", "postgres")
        self._run("pg_basebackup", "--checkpoint=fast", *at, "-D", "backups/new")
        name = time.strftime("base-%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        return (self.backups / "new").rename(self.backups / name)

    def ask(self, statement: str) -> str:
        """Return psql's output for a statement."""
        at = ("-h", HOST, "-p", str(self.port), "-U", "postgres")
        return self._run("psql", *at, "-Atc", statement).stdout.strip()

    def ask_in(self, database: str, statement: str, user: str = "postgres") -> str:
        """Return psql's output for a statement in this database, as this user."""
        at = ("-h", HOST, "-p", str(self.port), "-U", user, "-d", database)
        return self._run("psql", *at, "-v", "ON_ERROR_STOP=1", "-Atc", statement).stdout.strip()

    def size(self) -> int:
        """Return the bytes of all its files."""
        return sum(place.stat().st_size for place in self._folder.rglob("*") if place.is_file())

    def restart(self) -> None:
        """Restart the server with cold caches: neither the server nor the system holds file contents in memory."""
        self.stop()
        for place in self._folder.rglob("*"):
            if place.is_file():
                descriptor = os.open(place, os.O_RDONLY)
                os.fsync(descriptor)
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
                os.close(descriptor)
        self.start()

    def stop(self) -> None:
        """Stop the server at once, and let it write all data."""
        self._server.send_signal(signal.SIGINT)
        self._server.wait(60)

    def kill(self) -> None:
        """Send SIGKILL to the server. Its child processes end by themselves."""
        self._server.kill()
        self._server.wait(30)

    def close(self) -> None:
        """Stop the server at once, with all connections."""
        self._server.send_signal(signal.SIGQUIT)
        try:
            self._server.wait(30)
        finally:
            self._server.kill()
            self._ports.close()
            self._kept.cleanup()

    def _answers(self) -> bool:
        return self._run("pg_isready", "-h", HOST, "-p", str(self.port), check=False).returncode == 0

    def _run(self, program: str, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        command: Sequence[str | Path] = [self._programs / program, *arguments]
        done: subprocess.CompletedProcess[str] = subprocess.run(
            command, cwd=self._folder, capture_output=True, text=True, check=False, **self.as_owner()
        )
        assert not check or done.returncode == 0, done.stderr
        return done

    def as_owner(self) -> dict[str, Any]:
        """Return subprocess arguments that start a process with the server's rights to its files."""
        return {"user": self._owner[0], "group": self._owner[1]} if os.getuid() == 0 else {}
