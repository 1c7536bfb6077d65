"""A service that switches to any protocol that it is asked for, and answers whatever comes then: 101, then bytes."""

import socketserver
import threading
from base64 import b64encode
from hashlib import sha1

from loadtest.testbed.ports import HOST

SWITCHED = b"switched: the service has this from the client: "
HEAD_BYTES_MAX = 65536


class _Handler(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        """Answer requests on one connection until it ends, or switches."""
        received = b""
        while True:
            while b"\r\n\r\n" not in received and len(received) < HEAD_BYTES_MAX:
                if not (data := self.request.recv(65536)):
                    return
                received += data
            head, _, received = received.partition(b"\r\n\r\n")
            fields = [line.split(b":", 1) for line in head.split(b"\r\n")[1:]]
            protocol = b", ".join(value.strip().lower() for name, value in fields if name.lower() == b"upgrade")
            if not protocol:
                self.request.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nplain")
                continue
            key = next((value.strip() for name, value in fields if name.lower() == b"sec-websocket-key"), b"")
            accept = b64encode(sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())  # RFC 6455 section 4.2.2
            self.request.sendall(
                b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %b\r\n"
                b"Sec-WebSocket-Accept: %b\r\n\r\n" % (protocol, accept)
            )
            while data := received or self.request.recv(65536):
                received = b""
                self.request.sendall(SWITCHED + data)
            return


class SwitchingService:
    """The service, in threads of this process."""

    def __init__(self) -> None:
        self._server = socketserver.ThreadingTCPServer((HOST, 0), _Handler)
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End it."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
