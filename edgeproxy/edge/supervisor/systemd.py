"""Notifications to systemd (sd_notify(3)): ready, reloading, stopping, a status line, and the watchdog.

Without NOTIFY_SOCKET nothing is sent. A notification that the service manager does not take at once is dropped, because
the edge serves with or without it.
"""

import os
import socket
from collections.abc import MutableMapping
from time import CLOCK_MONOTONIC, clock_gettime_ns


class Systemd:
    """The notification socket of the service manager."""

    def __init__(self, environ: MutableMapping[str, str] = os.environ) -> None:
        """Remove its variables from `environ`, so that workers do not notify for the edge."""
        named = environ.pop("NOTIFY_SOCKET", "")
        watchdog = environ.pop("WATCHDOG_USEC", "")
        pid = environ.pop("WATCHDOG_PID", "")
        self._to: str | None = None
        if named.startswith(("/", "@")):
            # The name of an abstract socket begins with a NUL, which no variable can hold.
            self._to = "\0" + named[1:] if named.startswith("@") else named
        self._status = ""
        self.watchdog: float | None = None
        """Seconds between two calls of `alive`, half of the permitted time; None without a watchdog."""
        if self._to and watchdog.isdecimal() and int(watchdog) and pid in ("", str(os.getpid())):
            self.watchdog = int(watchdog) / 2e6

    def ready(self, status: str) -> None:
        """Notify that the edge serves, at the start or after a reload."""
        self._send("READY=1", status)

    def reloading(self) -> None:
        """Notify that a reload begins; `ready` ends it, whatever its outcome."""
        self._send("RELOADING=1", "reloading", f"MONOTONIC_USEC={clock_gettime_ns(CLOCK_MONOTONIC) // 1000}")

    def stopping(self, status: str) -> None:
        """Notify that the edge drains and ends."""
        self._send("STOPPING=1", status)

    def status(self, status: str) -> None:
        """Send a status line, if it has changed."""
        if status != self._status:
            self._send("", status)

    def alive(self) -> None:
        """Notify that the event loop runs."""
        self._send("WATCHDOG=1")

    def _send(self, state: str, status: str = "", *more: str) -> None:
        if self._to is None:
            return
        if status:
            self._status = status
        lines = [state, *more, f"STATUS={status}" if status else ""]
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
            try:
                end.setblocking(False)
                end.sendto("\n".join(filter(None, lines)).encode(), self._to)
            except OSError:
                pass
