"""Concurrency with aborted clients and killed workers: no slot is lost, and double use of a slot is short."""

import asyncio
import random
import socket
import struct
import threading
from collections import Counter
from time import monotonic

from loadtest.testbed.customers import people
from loadtest.testbed.edge import Edge, StartEdge
from loadtest.testbed.fault_load import whole_crew
from loadtest.testbed.load_clients import request
from loadtest.testbed.ports import HOST
from loadtest.testbed.process import kill
from loadtest.testbed.waiting import SLOWNESS, until
from tests.support.edge_tables import in_use, shown
from tests.support.service import Service

CLIENTS = 4000
KILLS = 6
AT_ONCE = 40
"""The number of clients at once."""
PAUSE = 0.06
"""The longest pause between two clients in seconds. The pauses leave processor time for starting workers."""
MOST = 2
"""The concurrency of the customer."""
OVERLAP = 0.5 * SLOWNESS
"""More requests may be in progress for this number of seconds, until the upstream notices a lost client or worker."""
PATIENCE = 10.0 * SLOWNESS


class Aborting:
    """Clients that leave at random moments, in random ways."""

    def __init__(self, port: int, chance: random.Random) -> None:
        self.outcomes: Counter[str] = Counter()
        self.left = 0
        """The number of clients that have come and left."""
        self._port = port
        self._chance = chance

    async def come_and_go(self, stop: threading.Event) -> None:
        """Run AT_ONCE clients at a time, until there were CLIENTS of them and `stop` is set."""
        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(self._binding(stop))

    async def _binding(self, stop: threading.Event) -> None:
        while self.left < CLIENTS or not stop.is_set():
            self.left += 1
            await asyncio.sleep(self._chance.random() * PAUSE)
            try:
                async with asyncio.timeout(PATIENCE):
                    await self._client()
            except OSError as failure:
                self.outcomes[type(failure).__name__] += 1

    async def _client(self) -> None:
        loop, chance = asyncio.get_running_loop(), self._chance
        path = chance.choice(["/hold?ms=15", "/stream?ms=2&n=8", "/quick"])
        data = request(path, "acme")
        way = chance.choice(["head", "waiting", "begun", "whole"])
        with socket.socket() as wire:
            wire.setblocking(False)
            if chance.random() < 0.5:
                # A reset instead of an orderly end.
                wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            await loop.sock_connect(wire, (HOST, self._port))
            if way == "head":
                await loop.sock_sendall(wire, data[: chance.randrange(len(data))])
                await asyncio.sleep(chance.choice([0, 0.002]))
            else:
                await loop.sock_sendall(wire, data)
                if way == "waiting":
                    await asyncio.sleep(chance.random() * 0.01)
                else:
                    heard = await loop.sock_recv(wire, 65536)
                    way += f" {heard[9:12].decode() or 'nothing'}"
                    while "whole" in way and heard and not is_whole(heard):
                        more = await loop.sock_recv(wire, 65536)
                        heard = heard + more if more else b""
        self.outcomes[way] += 1


def is_whole(answer: bytes) -> bool:
    """Return whether an answer of the edge or of the service is complete."""
    head, found, body = answer.partition(b"\r\n\r\n")
    if b"chunked" in head.lower():
        return body.endswith(b"0\r\n\r\n")
    length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
    return bool(found) and len(body) >= int(length or 0)


def kill_some(edge: Edge, chance: random.Random, over: threading.Event) -> None:
    """Kill one or both workers, each time after all workers have started."""
    try:
        kills = 0
        while kills < KILLS:
            victims = chance.sample(edge.worker_pids(), min(chance.choice([1, 2]), KILLS - kills))
            for victim in victims:
                kill(victim)
            kills += len(victims)
            until(lambda gone={*victims}: whole_crew(edge, gone), "new workers have started")  # type: ignore[misc]
    finally:
        over.set()


def takes_as_many_as_it_says(edge: Edge, service: Service) -> None:
    """Check that exactly the allowed number of requests is admitted at once."""
    held = b"GET /hold?ms=700 HTTP/1.1\r\nHost: a\r\nX-API-Key: key-of-acme\r\n\r\n"
    wires = [socket.create_connection((HOST, edge.port), PATIENCE) for _ in range(MOST)]
    try:
        before = len(service.of("acme").begun)
        for number, wire in enumerate(wires, 1):
            wire.sendall(held)
            until(lambda n=number: len(service.of("acme").begun) == before + n, "the request is in progress")  # type: ignore[misc]
        assert shown(edge, "acme") == in_use(edge, "acme") == MOST
        assert edge.ask("/quick", key="key-of-acme").status == 429
        assert [wire.recv(100)[9:12] for wire in wires] == [b"200"] * MOST
    finally:
        for wire in wires:
            wire.close()


def test_aborted_clients_and_killed_workers_leave_no_slot_in_use(
    start_edge: StartEdge, service: Service, seed: int
) -> None:
    chance = random.Random(seed)
    settings = people(acme="free")
    settings["customers"]["acme"]["concurrency"] = MOST
    edge = start_edge(port=service.port, workers=2, **settings)
    over = threading.Event()
    killer = threading.Thread(target=kill_some, args=(edge, random.Random(seed), over))
    clients = Aborting(edge.port, chance)
    begun = monotonic()
    killer.start()
    try:
        asyncio.run(clients.come_and_go(over))
    finally:
        killer.join()
    under = service.of("acme")
    spans = under.above(MOST)
    longest = max([last - first for first, last, _ in spans], default=0.0)
    print(f"{clients.left} clients in {monotonic() - begun:.1f} s: {dict(sorted(clients.outcomes.items()))}")
    print(f"{len(under.begun)} got through; {len(spans)} times more than {MOST}, {longest * 1000:.0f} ms at most")
    assert whole_crew(edge, set())
    until(lambda: shown(edge, "acme") == 0 and in_use(edge, "acme") == 0, "nothing is in use", seconds=5)
    assert under.now == 0
    assert longest < OVERLAP
    assert len(under.begun) > 200, "too few requests reached the upstream"
    assert clients.outcomes["begun 429"] > 200
    takes_as_many_as_it_says(edge, service)
    until(lambda: in_use(edge, "acme") == 0, "nothing is in use")
