"""Asking a server one thing, with nothing but the standard library's client."""

import io
import select
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPResponse
from typing import Any

import orjson

from loadtest.testbed.ports import HOST
from loadtest.testbed.waiting import SLOWNESS

PATIENCE = 15.0 * SLOWNESS
"""Seconds within which a server that works answers, however busy the machine is."""


@dataclass(frozen=True)
class Answer:
    """An answer as it came: field names in lower case, in their order, repeated ones repeatedly."""

    status: int
    fields: list[tuple[str, str]]
    body: bytes

    def __getitem__(self, name: str) -> str:
        """The value of a field that is there exactly once."""
        (value,) = self.all(name)
        return value

    def __contains__(self, name: object) -> bool:
        return any(field == name for field, _ in self.fields)

    def all(self, name: str) -> list[str]:
        """Every value of a field."""
        return [value for field, value in self.fields if field == name]

    def json(self) -> Any:
        """The body, which is JSON."""
        return orjson.loads(self.body)


def answer_of(response: HTTPResponse) -> Answer:
    """The rest of a response, read to its end."""
    fields = [(name.lower(), value) for name, value in response.getheaders()]
    return Answer(response.status, fields, response.read())


def ask(
    port: int,
    path: str = "/",
    *,
    method: str = "GET",
    key: str | None = None,
    fields: Mapping[str, str] | None = None,
    body: bytes | None = None,
    source: str | None = None,
) -> Answer:
    """One request over a connection of its own, from the address `source` of this machine."""
    address = None if source is None else (source, 0)
    connection = HTTPConnection(HOST, port, timeout=PATIENCE, source_address=address)
    headers = dict(fields or {})
    if key is not None:
        headers["X-API-Key"] = key
    try:
        connection.request(method, path, body=body, headers=headers)
        return answer_of(connection.getresponse())
    finally:
        connection.close()


class Wire:
    """A bare connection: bytes out, answers in. Every operation fails rather than waits too long."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection((HOST, port), timeout=PATIENCE)
        self._file = _Kept(socket.SocketIO(self.socket, "r"))

    def __enter__(self) -> "Wire":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def hear(self, method: str = "GET") -> Answer:
        """The next answer; `method` is that of its request."""
        response = HTTPResponse(self, method=method)  # type: ignore[arg-type]
        response.begin()
        return answer_of(response)

    def rest(self) -> bytes:
        """All that still comes until the other side ends the connection."""
        return self._file.read()

    def makefile(self, _: str) -> io.BufferedReader:
        """What HTTPResponse asks a socket for."""
        return self._file


class _Kept(io.BufferedReader):
    """Stays open where one answer ends: what was read ahead belongs to the next."""

    def close(self) -> None:
        pass


def send_until_stalled(raw: socket.socket, body: bytes) -> int:
    """How many bytes of the body are taken before nobody takes any for half a second."""
    sent = 0
    while sent < len(body) and select.select([], [raw], [], 0.5)[1]:
        sent += raw.send(memoryview(body)[sent : sent + (1 << 16)])
    return sent
