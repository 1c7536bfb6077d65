"""The reactions of the load generator's client to a misbehaving server, as JSON.

It is a separate program because Locust patches its process. By name: the number of requests that arrived, the status
that the client recorded, the client's address, and the number of connections.
"""

import json
import os
import resource
import socket
from collections import defaultdict
from typing import Any

import gevent.monkey

gevent.monkey.patch_all()

from gevent.server import StreamServer  # noqa: E402
from locust.env import Environment  # noqa: E402

from loadtest import client, record  # noqa: E402
from loadtest.schedule import Arrival  # noqa: E402
from loadtest.users import Keyed, Run, SlowReader  # noqa: E402

WHOLE = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
ANSWERS = {
    "/v1/x?size=1": None,  # closes without an answer
    "/v1/x?size=2": b"HTTP/1.1 302 Found\r\nLocation: /v1/x\r\nContent-Length: 0\r\n\r\n",
    "/v1/x?size=3": b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
    "/v1/x?size=4": b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\n\r\n",
    "/v1/x?size=65536": b"HTTP/1.1 200 OK\r\nContent-Length: 65536\r\n\r\n" + b"x" * 65536,
}
CLOSES = {"/v1/x?size=1", "/v1/x?size=3", "/v1/x?size=5"}


class Server:
    """Answers as the table says, and counts."""

    def __init__(self) -> None:
        self.asked: dict[str, int] = defaultdict(int)
        self.connections = 0
        self.address = ""
        self._server = StreamServer(("127.0.0.1", 0), self._serve)
        self._server.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def _serve(self, sock: socket.socket, address: tuple[str, int]) -> None:
        self.connections += 1
        self.address = address[0]
        data = b""
        while piece := sock.recv(65536):
            data += piece
            while b"\r\n\r\n" in data:
                head, _, data = data.partition(b"\r\n\r\n")
                path = head.split(b" ")[1].decode()
                self.asked[path] += 1
                answer = ANSWERS.get(path, WHOLE)
                if answer is not None:
                    sock.sendall(answer)
                if path in CLOSES:
                    sock.close()
                    return


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def main() -> dict[str, Any]:
    client.ANSWER = 1.0
    server, told = Server(), {}
    gone = f"http://127.0.0.1:{free_port()}"
    environment = Environment(user_classes=[])
    plan = {
        "begin": 0.0, "worker": 0, "regions": {"near": 1, "far": 1}, "kinds": {"pro": [1, 1]}, "direct": {}, "keys": {},
        "seed": 7,
        "ways": {"0": [[0, server.url]], "1": [[1, gone], [0, server.url]]},
    }  # fmt: skip
    run = Run(plan)
    seen: list[str] = []
    environment.events.request.add_listener(lambda name, exception, **_: seen.append(f"{name} {exception is None}"))

    def ask(user: Any, size: int = 0) -> record.Request:
        user.take(Arrival(run.clock(), "near", "pro", 0, "GET", size), 0.0)
        (one,) = record.unpacked(run.take())
        return one

    user = Keyed(environment, run, 0, "127.0.2.9")
    for name, size in (("closed", 1), ("redirect", 2), ("half", 3), ("limited", 4)):
        one = ask(user, size)
        told[name] = {"asked": server.asked[f"/v1/x?size={size}"], "status": one.status}
    told["redirect"]["followed"] = server.asked["/v1/x"]
    told["address"] = server.address

    before = server.connections
    told["closed while idle"] = [ask(user, size).status for size in (5, 6)]
    told["reused"] = [ask(user).status for _ in range(3)]
    told["connections"] = server.connections - before

    # select does not support descriptors above 1023.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 4096), most))
    held = [os.dup(0) for _ in range(1100)]
    late, before = Keyed(environment, run, 0, None), server.connections
    told["above 1023"] = [ask(late).status for _ in range(3)], server.connections - before
    for number in held:
        os.close(number)

    far = Keyed(environment, run, 1, None)
    first, second = ask(far), ask(far)
    told["moved"] = [[one.asked, one.status, one.response < 1] for one in (first, second)]
    slow = ask(SlowReader(environment, run, 0, None))
    told["slow"] = [slow.status, slow.response < 0.5, run.clock() - slow.due > 1.5]
    told["locust saw"] = seen
    return told


if __name__ == "__main__":
    print(json.dumps(main()))
