"""`edgeproxy probe --wait`: poll until a server is ready, or until its process has ended."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import typer

from edgeproxy.cli.outcome import fail
from edgeproxy.config.units import read_duration

PAUSE_SECONDS = 0.2
"""Seconds between two requests."""
LISTEN = "0A"
"""The state of a listening socket in /proc/net/tcp."""
LOG_BYTES = 8192
"""The last bytes of a log that may contain its last line."""


class UnansweredError(Exception):
    """A server is not ready, or does not answer; the text gives the reason."""


def wait_until_ready(
    ask: Callable[[], object], wait: str, process: int | None, log: Path | None, port: int | None
) -> None:
    """Ask until no UnansweredError is raised; exit with 1 once the time `wait` is over or the process has ended.

    At a TCP port an answer counts once the process listens there: before that, another process may answer. The
    printed reason of a failure is the last answer, and the last line of `log` if there is one.
    """
    try:
        deadline = time.monotonic() + read_duration(wait)
    except ValueError as error:
        fail(f"--wait: {error}", 2)
    while True:
        has_ended = process is not None and not _is_running(process)
        try:
            if not has_ended:
                if process is not None and port is not None and not _listens(process, port):
                    raise UnansweredError(f"process {process} does not listen at port {port}")
                ask()
                return
            why = f"process {process} has ended"
        except UnansweredError as error:
            why = str(error)
        if has_ended:
            _fail_with_log(why, log)
        if time.monotonic() >= deadline:
            _fail_with_log(f"not ready after {wait}: {why}", log)
        time.sleep(PAUSE_SECONDS)


def _is_running(process: int) -> bool:
    """Return whether a process runs. A zombie, which has ended and awaits its parent, does not run."""
    try:
        status = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] not in ("Z", "X")


def _listens(process: int, port: int) -> bool:
    """Return whether a process has a socket that listens at this port; True if its files are not readable."""
    try:
        files = {os.readlink(file.path) for file in os.scandir(f"/proc/{process}/fd") if file.is_symlink()}
        tables = [Path(f"/proc/{process}/net/{name}").read_text() for name in ("tcp", "tcp6")]
    except FileNotFoundError:
        return False  # A file was closed meanwhile, or the process has ended: the caller tries again.
    except OSError:
        return True
    rows = (line.split() for table in tables for line in table.splitlines()[1:])
    inodes = {row[9] for row in rows if row[3] == LISTEN and int(row[1].rpartition(":")[2], 16) == port}
    return any(f"socket:[{inode}]" in files for inode in inodes)


def _fail_with_log(why: str, log: Path | None) -> NoReturn:
    last = None if log is None else _read_last_line(log)
    if last is not None:
        typer.echo(why, err=True)
        fail(f"the last line of {log}: {last}", 1)
    fail(why if log is None else f"{why}, and {log} is empty", 1)


def _read_last_line(log: Path) -> str | None:
    """Return the last non-empty line of a log, without control characters, or None."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - LOG_BYTES))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return None
    texts = (line.strip() for line in reversed(lines))
    last = next((text for text in texts if text), None)
    return last and "".join(character if character.isprintable() else "?" for character in last)
