"""Whole edges: supervisors and workers as processes, killed and stopped as hosts and operators do it."""

import itertools
import json
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from edgeproxy.config.edge.quick import load_quick
from edgeproxy.edge.supervisor import main
from loadtest.testbed.customers import key_of, people
from loadtest.testbed.edge import Edge
from loadtest.testbed.ports import HOST, Ports
from loadtest.testbed.process import kill
from loadtest.testbed.upstream import Upstream
from loadtest.testbed.waiting import until

Make = Callable[..., Edge]


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upstream]:
    served = Upstream(tmp_path_factory.mktemp("upstream"))
    yield served
    served.stop()


@pytest.fixture
def make(tmp_path: Path, upstream: Upstream) -> Iterator[Make]:
    """Make an edge of one worker, which is not started yet. All share their address and their state directory."""
    numbers = itertools.count()
    with ExitStack() as ends:
        (port,) = ends.enter_context(closing(Ports(1))).numbers
        shared = {"listen": f"{HOST}:{port}", "state": str(tmp_path / "state"), "workers": 1, **people(acme="free")}

        def make(**settings: Any) -> Edge:
            edge = Edge(tmp_path / f"edge{next(numbers)}", upstream.port, **{**shared, **settings})
            edge.port = port
            return ends.enter_context(closing(edge))

        yield make


def killed(edge: Edge) -> set[int]:
    """The workers that are left of an edge whose supervisor is killed now."""
    kill(edge.supervisor.pid)
    return edge.supervisor.family()


def request(edge: Edge, times: int) -> None:
    """So many requests that are answered with 200, each over its own connection."""

    def answered() -> bool:
        try:
            return edge.ask(key=key_of("acme")).status == 200
        except OSError:
            return False

    for _ in range(times):
        until(answered, "a request is answered")


def logged(edge: Edge, event: str) -> list[dict[str, Any]]:
    """The structured log lines of this event."""
    lines = [json.loads(line) for line in edge.output.splitlines() if line.startswith("{")]
    return [line for line in lines if line["event"] == event]


def test_orphans_stay_while_a_new_supervisor_cannot_serve(make: Make) -> None:
    first = make(workers=2).start()
    old = set(first.worker_pids())
    assert killed(first) == old
    with socket.create_server((HOST, 0)) as foreign:
        assert make(admin=f"{HOST}:{foreign.getsockname()[1]}").begin().wait(20) == 2
    assert first.supervisor.family() == old
    request(first, 3)


def test_older_supervisor_takes_over_from_a_killed_newer_one(make: Make) -> None:
    first, second = make().start(), make().start()
    assert len(killed(second)) == 1
    until(lambda: not second.supervisor.family(), "the orphan has left, for the first serves again")
    request(first, 5)


def test_sighup_reloads_and_logs_the_result(make: Make) -> None:
    edge = make().start()
    edge.supervisor.send_signal(signal.SIGHUP)
    until(lambda: logged(edge, "configuration is what serves already"), "the edge logs that nothing changed")
    edge.write(security_headers=True, region="elsewhere")
    edge.supervisor.send_signal(signal.SIGHUP)
    (said,) = until(lambda: logged(edge, "configuration reloaded"), "the edge logs the reload")
    assert said["needs_restart"] == ["region"]
    assert said["sha256"] == edge.status()["config"]["sha256"]
    good = edge.file.read_text()
    edge.file.write_text(good + "drain: 5\nx: 1\n")
    edge.supervisor.send_signal(signal.SIGHUP)
    (said,) = until(
        lambda: logged(edge, "configuration refused; the one before serves on"), "the edge logs the refusal"
    )
    last = len(good.splitlines()) + 2
    places = [f"{edge.file}:{last - 1}: drain", f"{edge.file}:{last}: x"]
    assert [error.rpartition(": ")[0] for error in said["errors"]] == places
    request(edge, 1)


def test_sighup_to_both_of_two_supervisors_reloads_each(make: Make) -> None:
    edges = [make().start() for _ in range(2)]
    for edge in edges:
        edge.write(security_headers=True)
        edge.supervisor.send_signal(signal.SIGHUP)
    for edge in edges:
        until(lambda edge=edge: logged(edge, "configuration reloaded"), "the edge has reloaded")
        request(edge, 3)
    assert [edge.usage()["acme"] for edge in edges] == [6, 6]


def test_a_reload_that_is_asked_for_while_the_edge_starts_is_not_forgotten(make: Make) -> None:
    edge = make()
    edge.begin()
    until(lambda: logged(edge, "edge starting"), "the edge has started")
    edge.write(security_headers=True)
    edge.supervisor.send_signal(signal.SIGHUP)
    until(edge.ready, "the edge is ready")
    until(lambda: logged(edge, "configuration reloaded"), "the edge has reloaded")
    assert edge.status()["config"]["error"] is None
    request(edge, 3)


def test_a_port_in_use_is_named_and_nothing_is_started(make: Make, tmp_path: Path) -> None:
    with socket.create_server((HOST, 0)) as foreign:
        taken = foreign.getsockname()[1]
        edge = make(admin=f"{HOST}:{taken}")
        assert edge.begin().wait(20) == 2
    assert edge.output == f"edgeproxy: cannot listen on {HOST}:{taken}: Address already in use\n"
    assert not (tmp_path / "state").exists()


def test_edge_exits_with_a_reason_if_no_worker_can_start(make: Make) -> None:
    edges = [make().start() for _ in range(2)]
    third = make()
    assert third.begin().wait(20) == 1
    assert "edgeproxy: no worker could start: " in third.output
    assert "column" in third.output
    request(edges[0], 5)


def test_an_address_of_an_edge_with_another_state_directory_is_refused(make: Make, tmp_path: Path) -> None:
    edge = make().start()
    other = make(state=str(tmp_path / "other"))
    assert other.begin().wait(20) == 2
    assert other.output == (
        f"edgeproxy: cannot listen on {HOST}:{edge.port}: "
        f"another process does, which is no edge on the state directory {tmp_path / 'other'}\n"
    )
    request(edge, 5)


def test_orphans_of_the_older_supervisor_serve_after_the_newer_one_ends(make: Make) -> None:
    first = make().start()
    workers = set(first.worker_pids())
    make().start().end()
    assert killed(first) == workers
    until(lambda: "serving on until another one serves" in first.output, "the orphan logs that it serves on")
    request(first, 5)
    assert first.supervisor.family() == workers


def test_machine_with_unproven_memory_order_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    # Logs of later tests would go where this one's standard error went, which is gone by then.
    monkeypatch.setattr(main.log, "configure", lambda process: None)
    settings = load_quick("http://127.0.0.1:1", listen="127.0.0.1:0", admin=None, rate=None, state=tmp_path / "state")
    assert main.run(lambda: settings, None) == 2
    assert "this machine is riscv64" in capsys.readouterr().err
    assert not (tmp_path / "state").exists()
