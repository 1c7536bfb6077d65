"""Answers that the probe reads within a bound in bytes and in time.

http.client alone takes interim answers and trickled bytes without end: its timeout is for each piece.
"""

import io
import socket
import time
from collections.abc import Callable
from http.client import HTTPConnection, HTTPResponse, HTTPSConnection
from typing import ClassVar
from urllib.request import HTTPHandler, HTTPSHandler, Request

ANSWER_BYTES_MAX = 17 << 20
"""Bytes of an answer with its head."""


class _BoundedFile(io.RawIOBase):
    """The bytes of one answer. Its deadline is the timeout of its socket from now on."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._file = connection.makefile("rb", buffering=0)
        self._seconds = connection.gettimeout() or 0.0
        self._deadline = time.monotonic() + self._seconds
        self._left = ANSWER_BYTES_MAX

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int | None:  # type: ignore[override]
        """Read the next bytes; raises TimeoutError after the deadline, and OSError beyond the bound in bytes."""
        seconds = self._deadline - time.monotonic()
        if seconds <= 0:
            raise TimeoutError(f"no whole answer within {self._seconds:g} s")
        if self._left <= 0:
            raise OSError(f"an answer of more than {ANSWER_BYTES_MAX} bytes")
        self._connection.settimeout(seconds)
        count = self._file.readinto(buffer)
        self._left -= count or 0
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


class _Source:
    """A socket whose file is bounded."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def makefile(self, mode: str) -> io.BufferedReader:
        """Return the file that an answer is read from."""
        return io.BufferedReader(_BoundedFile(self._connection))


class _Answer(HTTPResponse):
    def __init__(self, sock: socket.socket, *arguments: object, **options: object) -> None:
        super().__init__(_Source(sock), *arguments, **options)  # type: ignore[arg-type]


class _Connection(HTTPConnection):
    response_class: ClassVar[Callable[..., HTTPResponse]] = _Answer  # type: ignore[misc,assignment]


class _TlsConnection(HTTPSConnection):
    response_class: ClassVar[Callable[..., HTTPResponse]] = _Answer  # type: ignore[misc,assignment]


class BoundedHttpHandler(HTTPHandler):
    """Opens http:// with bounded answers."""

    def http_open(self, req: Request) -> HTTPResponse:
        """Send a request, and read the head of its answer."""
        return self.do_open(_Connection, req)


class BoundedHttpsHandler(HTTPSHandler):
    """Opens https:// with bounded answers."""

    def https_open(self, req: Request) -> HTTPResponse:
        """Send a request, and read the head of its answer."""
        return self.do_open(_TlsConnection, req, context=self._context)  # type: ignore[attr-defined]
