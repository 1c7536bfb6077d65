"""Upstreams that close connections at any time: clients get every available answer."""

import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection

import requests

from loadtest.testbed.edge import StartEdge
from loadtest.testbed.ports import HOST

OPEN = [{"name": "all", "path": "/*", "upstream": "api", "auth": "none"}]


@contextmanager
def service(serve: Callable[[socket.socket], None]) -> Iterator[str]:
    """The URL of a service that handles each connection in its own thread."""
    with socket.create_server((HOST, 0), backlog=64) as listening:

        def accept() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                threading.Thread(target=serve, args=(connection,), daemon=True).start()

        accepting = threading.Thread(target=accept)
        accepting.start()
        yield f"http://{HOST}:{listening.getsockname()[1]}"
        listening.shutdown(socket.SHUT_RDWR)
    accepting.join()


def read_head(connection: socket.socket) -> None:
    """Read a request's head, and any bytes that arrive with it."""
    data = b""
    while b"\r\n\r\n" not in data and (more := connection.recv(65536)):
        data += more


def closes_soon(connection: socket.socket) -> None:
    """Answer a request as if the connection would stay open, and close it within 3 ms."""
    with connection:
        read_head(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        time.sleep(random.random() * 0.003)  # The test is about the race with the next request.


def refuses_early(connection: socket.socket) -> None:
    """Answer an upload without reading it."""
    with connection:
        read_head(connection)
        connection.sendall(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 4\r\n\r\nlong")


def test_no_get_is_lost_to_connections_that_are_closed_after_each_answer(start_edge: StartEdge) -> None:
    with service(closes_soon) as url:
        edge = start_edge(upstreams={"api": {"endpoints": [url], "retry": {"budget": "0%"}}}, routes=OPEN)
        client = HTTPConnection(HOST, edge.port, timeout=30)
        statuses: Counter[int] = Counter()
        for _ in range(300):
            client.request("GET", "/")
            answer = client.getresponse()
            answer.read()
            statuses[answer.status] += 1
        client.close()
    assert statuses == {200: 300}


def test_an_answer_to_an_unread_upload_arrives(start_edge: StartEdge) -> None:
    with service(refuses_early) as url:
        edge = start_edge(upstreams={"api": {"endpoints": [url]}}, routes=OPEN)
        body = bytes(20 << 20)
        answers = [requests.post(f"http://{HOST}:{edge.port}/", data=body, timeout=30) for _ in range(5)]
    assert [(answer.status_code, answer.text) for answer in answers] == [(413, "long")] * 5
