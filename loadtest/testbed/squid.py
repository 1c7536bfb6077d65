"""A real Squid for one test: an outgoing proxy that knows private names."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self

from loadtest.testbed.ports import HOST, Ports
from loadtest.testbed.waiting import until

PROGRAM = shutil.which("squid", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
PASSWORDS = "/usr/lib/squid/basic_ncsa_auth"
"""Debian's helper that looks passwords up in a file."""
UNPRIVILEGED = "proxy"
"""The user of the process if tests run as root."""


class Squid:
    """The process. Only it knows addresses of `names`. With a `password` it answers 407 to clients that do not
    send it.
    """

    def __init__(self, names: Mapping[str, str], password: str | None = None) -> None:
        assert PROGRAM is not None, "the test skips where there is none"
        self._ports = Ports(1)
        (self.port,) = self._ports.numbers
        self._folder = TemporaryDirectory(prefix="edgeproxy-squid-")
        at = Path(self._folder.name)
        os.chmod(at, 0o777)
        (at / "hosts").write_text("".join(f"{address} {name}\n" for name, address in names.items()))
        self._log = at / "access.log"
        lines = [
            f"http_port {HOST}:{self.port}",
            f"pid_filename {at}/pid",
            f"hosts_file {at}/hosts",
            f"access_log stdio:{self._log}",
            "logfile_rotate 0",
            f"cache_log {at}/cache.log",
            f"coredump_dir {at}",
            "cache deny all",
            "cache_mem 8 MB",
            "shutdown_lifetime 0 seconds",
            "visible_hostname proxy.test",
            "pinger_enable off",
            "max_filedescriptors 1024",
        ]
        if os.getuid() == 0:
            lines.append(f"cache_effective_user {UNPRIVILEGED}")
        if password is not None:
            result = subprocess.run(
                ["openssl", "passwd", "-apr1", "-stdin"], input=password, capture_output=True, text=True, check=True
            )
            (at / "passwords").write_text(f"me:{result.stdout}")
            lines += [f"auth_param basic program {PASSWORDS} {at}/passwords", "acl known proxy_auth REQUIRED"]
        lines.append(f"http_access allow {'all' if password is None else 'known'}")
        lines.append("http_access deny all")
        (at / "squid.conf").write_text("\n".join(lines) + "\n")
        if os.getuid() == 0:
            owner = pwd.getpwnam(UNPRIVILEGED)
            os.chown(at, owner.pw_uid, owner.pw_gid)
        self._process = subprocess.Popen(
            [PROGRAM, "-N", "-f", str(at / "squid.conf")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        until(self._listens, "Squid listens", seconds=60)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(20)
        finally:
            self._process.kill()
            self._ports.close()
            self._folder.cleanup()

    def _listens(self) -> bool:
        assert self._process.poll() is None, "Squid has ended"
        with socket.socket() as probe:
            return probe.connect_ex((HOST, self.port)) == 0

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    @property
    def requests(self) -> list[str]:
        """A line of each request that is over."""
        return self._log.read_text().splitlines() if self._log.exists() else []
