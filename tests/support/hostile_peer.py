"""Servers that answer HTTP requests with one hostile pattern each, in a process of its own.

`python hostile_peer.py` prints a JSON object with the port of each pattern, and serves until its input ends.
"""

import gzip
import json
import socket
import struct
import sys
import threading
import time
from contextlib import suppress
from typing import NamedTuple

HTTP2_SETTINGS = b"\0\0\0\4\0\0\0\0\0"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
BOMB_BYTES = 256 << 20


class Pattern(NamedTuple):
    """Bytes that are sent once, bytes that are sent without end, and the seconds between two of these."""

    first: bytes
    endless: bytes
    pause: float = 0.0


PATTERNS = {
    "interim answers": Pattern(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n" * 5000),
    "continuations": Pattern(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 5000),
    "empty lines": Pattern(b"", b"\r\n" * 50_000),
    "a long field": Pattern(b"HTTP/1.1 200 OK\r\nA: ", b"a" * 100_000),
    "many fields": Pattern(b"HTTP/1.1 200 OK\r\n", b"a: b\r\n" * 20_000),
    "a long body": Pattern(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n", bytes(200_000)),
    "chunks of one byte": Pattern(CHUNKED, b"1\r\nx\r\n" * 20_000),
    "a chunk extension": Pattern(CHUNKED + b"1;", b"a" * 100_000),
    "many trailers": Pattern(CHUNKED + b"0\r\n", b"a: b\r\n" * 20_000),
    "a bomb": Pattern(b"", b"", 1.0),
    "many answers": Pattern(b"", b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n{}" * 5000),
    "a trickled head": Pattern(b"HTTP/1.1 200 OK\r\n", b"a", 0.02),
    "a trickled body": Pattern(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n", b" ", 0.02),
    "trickled interim answers": Pattern(b"", b"HTTP/1.1 102 Processing\r\n\r\n", 0.05),
    "silence": Pattern(b"", b"", 1.0),
    "a reset": Pattern(b"HTTP/1.1 200 OK\r\nContent-Len", b""),
    "HTTP/2 pings": Pattern(HTTP2_SETTINGS, b"\0\0\x08\6\0\0\0\0\0pingpong" * 5000),
    "HTTP/2 settings": Pattern(HTTP2_SETTINGS, HTTP2_SETTINGS * 10_000),
    "HTTP/2 unknown frames": Pattern(HTTP2_SETTINGS, b"\0\x40\0\xbb\0\0\0\0\0" + bytes(1 << 14)),
    # The head of a TLS record, and its bytes one by one.
    "a trickled handshake": Pattern(b"\x16\x03\x03\x3f\x00\x02", b"\x00", 0.02),
}


def build_bomb() -> bytes:
    """Return an answer whose body unfolds to BOMB_BYTES. This takes a second, so tests that import PATTERNS do not."""
    body = gzip.compress(bytes(BOMB_BYTES), 1)
    return b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%s" % (len(body) + 1, body)


def serve(connection: socket.socket, pattern: Pattern) -> None:
    """Answer one request by the pattern until the client has gone."""
    with connection, suppress(OSError):
        connection.recv(1 << 16)
        connection.sendall(pattern.first)
        while pattern.endless or pattern.pause:
            connection.sendall(pattern.endless)
            if pattern.pause:
                time.sleep(pattern.pause)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def accept(listening: socket.socket, pattern: Pattern) -> None:
    """Serve each connection in a thread."""
    while True:
        threading.Thread(target=serve, args=(listening.accept()[0], pattern), daemon=True).start()


if __name__ == "__main__":
    ports = {}
    PATTERNS["a bomb"] = PATTERNS["a bomb"]._replace(first=build_bomb())
    for name, pattern in PATTERNS.items():
        listening = socket.create_server(("127.0.0.1", 0))
        ports[name] = listening.getsockname()[1]
        threading.Thread(target=accept, args=(listening, pattern), daemon=True).start()
    print(json.dumps(ports), flush=True)
    sys.stdin.read()
