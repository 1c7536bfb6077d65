"""A real PgBouncer for one test, in front of a real PostgreSQL."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self

import sqlalchemy as sa

from loadtest.testbed.ports import HOST, Ports
from loadtest.testbed.waiting import until

PROGRAM = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
UNPRIVILEGED = "postgres"
"""The user of the process if tests run as root: PgBouncer refuses to start as root."""


class PgBouncer:
    """A PgBouncer that runs each transaction on any of a few server sessions, and refuses startup parameters by
    default.

    `mode` is its pool_mode.
    """

    def __init__(self, port: int, *, mode: str = "transaction", sessions: int = 20) -> None:
        """`port` is the port of the PostgreSQL."""
        assert PROGRAM is not None, "the test skips where there is none"
        self._ports = Ports(1)
        (self.port,) = self._ports.numbers
        self._folder = TemporaryDirectory(prefix="edgeproxy-pgbouncer-")
        os.chmod(self._folder.name, 0o755)
        self._file = Path(self._folder.name, "pgbouncer.ini")
        self._file.write_text(
            f"[databases]\n* = host={HOST} port={port}\n[pgbouncer]\nlisten_addr = {HOST}\nlisten_port = {self.port}\n"
            f"auth_type = any\npool_mode = {mode}\ndefault_pool_size = {sessions}\nunix_socket_dir =\n"
        )
        # With auth_type = any, the database's line sets the server's user.
        self._file.write_text(self._file.read_text().replace("* = ", "* = user=edgeproxy "))
        self.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._ports.close()
        self._folder.cleanup()

    def start(self) -> None:
        """Start it and return once it accepts connections."""
        user = pwd.getpwnam(UNPRIVILEGED).pw_uid if os.getuid() == 0 else None
        assert PROGRAM is not None
        self._process = subprocess.Popen(
            [PROGRAM, str(self._file)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, user=user
        )
        until(self._listens, "PgBouncer listens", seconds=30)

    def _listens(self) -> bool:
        assert self._process.poll() is None, "PgBouncer has ended"
        with socket.socket() as probe:
            return probe.connect_ex((HOST, self.port)) == 0

    def kill(self) -> None:
        """Stop it at once, with all connections."""
        self._process.send_signal(signal.SIGQUIT)
        self._process.kill()
        self._process.wait(30)

    def url(self, database: str) -> str:
        """Return the URL of a database through it."""
        return sa.make_url(database).set(port=self.port).render_as_string(hide_password=False)
