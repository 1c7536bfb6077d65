"""Supervisors killed one after another: no request is lost, each is counted once, and the last one serves soon."""

import random
import signal
import socket
from contextlib import closing
from pathlib import Path

from edgeproxy.edge.counters.control import Control
from loadtest.testbed.customers import people
from loadtest.testbed.edge import COMMAND, Edge, StartEdge
from loadtest.testbed.fault_load import whole_crew
from loadtest.testbed.http_client import ask
from loadtest.testbed.load_clients import request
from loadtest.testbed.ports import HOST
from loadtest.testbed.process import kill
from loadtest.testbed.step_kill import said, stepping
from loadtest.testbed.waiting import SLOWNESS, stretched, until
from tests.support.asking import Asking, at_work
from tests.support.edge_tables import in_use, shown
from tests.support.service import Service

SERVES = "before serve 1"
"""The step after all workers of a supervisor are ready and before it reports this."""
KILLS = 5
MOMENTS = ('"event": "edge starting"', '"event": "worker ready"', '"event": "edge serving"', "")
"""The last log event before a supervisor is killed. The empty one stands for a serving supervisor."""


class Held:
    """Requests that last until the service answers, each on a connection of its own."""

    def __init__(self, edge: Edge, customer: str, path: str, count: int) -> None:
        self._edge, self._customer, self._path = edge, customer, path
        self.wires: list[socket.socket] = []
        for _ in range(count):
            self.add()

    def add(self) -> None:
        """Send one more request."""
        self.wires.append(socket.create_connection((HOST, self._edge.port), 60 * SLOWNESS))
        self.wires[-1].sendall(request(self._path, self._customer))

    def answers(self) -> list[bytes]:
        """Wait for the responses. Return the status and the last bytes of each."""
        return [_whole(wire) for wire in self.wires]


def _whole(wire: socket.socket) -> bytes:
    with wire:
        answer = b""
        while not answer.endswith((b"ok", b"0\r\n\r\n")):
            more = wire.recv(65536)
            if not more:
                break
            answer += more
    return answer[9:12] + b" " + answer[-5:].strip().rpartition(b"\r\n")[2]


def settings(**more: str) -> dict[str, object]:
    """Return settings of a customer with a concurrency limit that these tests never reach."""
    described = people(acme="free")
    described["customers"]["acme"]["concurrency"] = 1000
    return {**described, **more}


def killed(edge: Edge, *, lately: bool = True) -> None:
    """Kill the supervisor with `kill -9`. Without `lately`, its heartbeat is made so old that it counts as dead."""
    kill(edge.supervisor.pid)
    edge.supervisor.wait(10)
    if not lately:
        with closing(Control.open(Path(edge.settings["state"]) / "control")) as control:
            control.write_heartbeat(control.read_heartbeat(0.0)[0], 0.0)


def dies_before_it_serves(edge: Edge) -> None:
    """Start a supervisor that is killed after its workers are ready and before it reports this."""
    before = edge.output.count(said(SERVES))
    edge.command = stepping(SERVES, "edge")
    supervisor = edge.begin()
    edge.command = COMMAND
    until(lambda: not supervisor.running, "the supervisor is killed", seconds=60)
    assert edge.output.count(said(SERVES)) > before, edge.output[-3000:]


def answers_more(asking: Asking, count: int = 10) -> None:
    """Wait until `count` more requests have been answered."""
    expected = asking.statuses[200] + count
    until(lambda: asking.statuses[200] >= expected, "requests are answered")


def assert_whole(edge: Edge, *everyone: Asking, held: int = 0) -> None:
    """Assert that one supervisor runs with its workers, that no request was lost, and that each was counted once."""
    until(lambda: whole_crew(edge, set()), "all workers run")
    until(lambda: len(edge.template_pids()) <= 1, "no other supervisor's template is left")
    own = {edge.supervisor.pid, *edge.template_pids()}
    until(lambda: edge.supervisor.family() == {*own, *edge.worker_pids()}, "all other processes end")
    for asking in everyone:
        assert (asking.lost, asking.refused, set(asking.statuses)) == (0, 0, {200}), (asking.lost, asking.statuses)
    answered = sum(asking.statuses[200] for asking in everyone) + held
    assert edge.usage()["acme"] == answered
    until(lambda: shown(edge, "acme") == in_use(edge, "acme") == 0, "no slot is in use")
    print(f"{answered} answered and counted")


def test_workers_of_failed_supervisors_release_their_columns(start_edge: StartEdge, service: Service) -> None:
    edge = start_edge(port=service.port, **settings())
    asking = Asking(edge.port, "acme", connections=4, pause=0.02)
    with at_work(asking):
        killed(edge, lately=False)
        for _ in range(2):
            dies_before_it_serves(edge)
            answers_more(asking)
        edge.start()
        answers_more(asking)
    assert_whole(edge, asking)


def test_a_supervisor_waits_for_columns_until_old_workers_have_finished(
    start_edge: StartEdge, service: Service
) -> None:
    edge = start_edge(port=service.port, **settings(drain=stretched(60)))
    asking = Asking(edge.port, "acme", connections=4, pause=0.02)
    with at_work(asking):
        held = Held(edge, "acme", "/held", 16)
        until(lambda: service.of("acme").now >= 16, "all held requests are in progress")

        def both_have_some() -> bool:
            if all(worker["connections"] for worker in edge.status()["workers"]):
                return True
            held.add()  # On a busy machine one worker may accept all of the first ones.
            return False

        until(both_have_some, "both workers have some of them")
        killed(edge)
        edge.start()
        killed(edge)
        waits_for_room(edge)
        # An operator may stop the waiting supervisor and start another one.
        assert edge.supervisor.wait_after(signal.SIGTERM, 20) == 0
        waits_for_room(edge)
        answers_more(asking)
        service.let_go()
        assert set(held.answers()) == {b"200 ok"}
        until(edge.ready, "the edge serves")
        answers_more(asking)
    assert_whole(edge, asking, held=len(held.wires))


def waits_for_room(edge: Edge) -> None:
    """Start a supervisor and wait until it reports that it waits for the killed one's workers."""
    supervisor = edge.begin()

    def says_so() -> bool:
        assert supervisor.running, edge.output[-3000:]
        try:
            why = str(ask(edge.admin, "/readyz").json()["reason"])
        except OSError:
            return False
        return why.startswith("starting: 0 of 2 workers are ready; ") and "killed" in why

    until(says_so, "the supervisor reports that it waits")


def test_the_last_supervisor_serves_after_kills_at_any_moment(
    start_edge: StartEdge, service: Service, seed: int
) -> None:
    draw = random.Random(seed)
    edge = start_edge(port=service.port, **settings(drain=stretched(20)))
    asking = Asking(edge.port, "acme", connections=4, pause=0.02)
    slow = Asking(edge.port, "acme", path="/hold?ms=700", connections=4)
    held = []
    with at_work(asking, slow):
        for _ in range(KILLS):
            held.append(Held(edge, "acme", "/stream?ms=40&n=50", 4))
            answers_more(asking, draw.randrange(1, 30))
            killed(edge, lately=draw.random() < 0.5)
            moment = draw.choice(MOMENTS)
            before = edge.output.count(moment)
            edge.begin()
            if moment:
                until(lambda: edge.output.count(moment) > before, moment)  # noqa: B023
            else:
                until(edge.ready, "the edge serves")
        killed(edge)
        edge.start()
        for each in held:
            assert each.answers() == [b"200 0"] * 4
    assert_whole(edge, asking, slow, held=4 * KILLS)
