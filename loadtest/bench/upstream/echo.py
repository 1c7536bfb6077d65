"""An upstream for checks: it answers with the bytes of the head that it was sent, at once or when it is told to."""

import socketserver
import threading
from types import TracebackType

HELD = "/v1/held"
"""What is answered only once `Echo.go_on` is set."""
_HOLD_AT_MOST = 10.0


class _Connection(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        """Requests without bodies only; that is all the checks send."""
        lines: list[bytes] = []
        try:
            for line in self.rfile:
                lines.append(line)
                if line == b"\r\n":
                    self._answer(b"".join(lines))
                    lines = []
        except ConnectionError:
            pass  # Nobody waits for the answer any more.

    def _answer(self, head: bytes) -> None:
        echo: Echo = self.server  # type: ignore[assignment]
        echo.heads += 1
        if head.startswith(b"GET %b " % HELD.encode()):
            echo.go_on.wait(_HOLD_AT_MOST)
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(head), head))


class Echo(socketserver.ThreadingTCPServer):
    """Serves in threads of the bench between entering and leaving. `heads` is how many requests it has had."""

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Connection)
        self.heads = 0
        self.go_on = threading.Event()
        self.port: int = self.server_address[1]

    def __enter__(self) -> "Echo":
        threading.Thread(target=self.serve_forever, args=(0.05,), name="echo", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.shutdown()
        self.server_close()
