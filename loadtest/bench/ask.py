"""Single requests to a peer, for checks and not for measurements."""

import http.client
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Answer:
    """`fields` in the order of arrival, names in lower case."""

    status: int
    fields: tuple[tuple[str, str], ...]
    body: bytes

    def values(self, name: str) -> list[str]:
        return [value for field, value in self.fields if field == name]


class Asker:
    """One keep-alive connection to a port of the loopback."""

    def __init__(self, connection: http.client.HTTPConnection) -> None:
        self._connection = connection

    def get(self, target: str, fields: Sequence[tuple[str, str]] = ()) -> Answer:
        """Raises OSError or http.client.HTTPException when there is no whole answer within 5 s."""
        self.ask(target, fields)
        return self.answer()

    def ask(self, target: str, fields: Sequence[tuple[str, str]] = ()) -> None:
        """Send a request; call `answer` next."""
        self._connection.putrequest("GET", target, skip_host=True, skip_accept_encoding=True)
        for name, value in (("Host", "api.example.com"), *fields):
            self._connection.putheader(name, value)
        self._connection.endheaders()

    def answer(self) -> Answer:
        """Return the answer to the last request."""
        answer = self._connection.getresponse()
        return Answer(
            answer.status,
            tuple((name.lower(), value) for name, value in answer.getheaders()),
            answer.read(),
        )


@contextmanager
def asking(port: int) -> Iterator[Asker]:
    """A connection that is closed at the end."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        yield Asker(connection)
    finally:
        connection.close()


def bearer(key: str) -> tuple[str, str]:
    return ("Authorization", f"Bearer {key}")
