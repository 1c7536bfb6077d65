"""Single requests to a server, with only the standard library's client."""

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
"""Seconds within which a working server answers, however busy the machine is."""


@dataclass(frozen=True)
class Answer:
    """An answer: field names in lower case, in order, with repetitions."""

    status: int
    fields: list[tuple[str, str]]
    body: bytes

    def __getitem__(self, name: str) -> str:
        """Return the value of a field that occurs exactly once."""
        (value,) = self.all(name)
        return value

    def __contains__(self, name: object) -> bool:
        return any(field == name for field, _ in self.fields)

    def all(self, name: str) -> list[str]:
        """Return every value of a field."""
        return [value for field, value in self.fields if field == name]

    def json(self) -> Any:
        """Return the body, parsed as JSON."""
        return orjson.loads(self.body)


def answer_of(response: HTTPResponse) -> Answer:
    """Read a response to its end."""
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
    """Send one request over a new connection, from the address `source` of this machine."""
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
    """A bare connection: bytes out, answers in. Every operation fails instead of waiting too long."""

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
        """Read the next answer, to a request with this `method`."""
        response = HTTPResponse(self, method=method)  # type: ignore[arg-type]
        response.begin()
        return answer_of(response)

    def rest(self) -> bytes:
        """Return all bytes until the other side ends the connection."""
        return self._file.read()

    def makefile(self, _: str) -> io.BufferedReader:
        """Return the file that HTTPResponse requests from a socket."""
        return self._file


class _Kept(io.BufferedReader):
    """Stays open at the end of an answer, because bytes read ahead belong to the next one."""

    def close(self) -> None:
        pass


def send_until_stalled(raw: socket.socket, body: bytes) -> int:
    """Return how many bytes of the body are accepted before the receiver stalls for half a second."""
    sent = 0
    while sent < len(body) and select.select([], [raw], [], 0.5)[1]:
        sent += raw.send(memoryview(body)[sent : sent + (1 << 16)])
    return sent
