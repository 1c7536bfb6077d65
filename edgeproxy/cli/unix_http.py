"""HTTP to a Unix socket, for urllib."""

import socket
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from urllib.request import HTTPHandler, Request

from edgeproxy.base.admin_socket import short_path


class UnixHandler(HTTPHandler):
    """Sends every request to the socket at `path`, whatever host its URL names."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def http_open(self, request: Request) -> HTTPResponse:
        """Send a request over a new connection to the socket."""

        def connect(host: str, /, *, timeout: float = 0.0, **_: object) -> HTTPConnection:
            return UnixConnection(self._path, timeout)

        return self.do_open(connect, request)


class UnixConnection(HTTPConnection):
    """A connection to a Unix socket."""

    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket; raises OSError."""
        with short_path(self._path) as name:
            self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.sock.settimeout(self.timeout)
            self.sock.connect(name)
