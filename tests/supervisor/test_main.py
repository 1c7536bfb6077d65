"""Whole edges: supervisors and workers as processes, killed and stopped as hosts and operators do it."""

import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeproxy.config.quick import load_quick
from edgeproxy.supervisor import main
from tests.supervisor.edges import Edge, Host, host
from tests.support.waiting import until


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Host]:
    with host(tmp_path) as made:
        yield made


def request(edge: Edge, times: int) -> None:
    """So many requests that are answered with 200, each over its own connection."""
    for _ in range(times):
        until(lambda: edge.request() == 200, "a request is answered")


def test_orphans_stay_while_a_new_supervisor_cannot_serve(here: Host) -> None:
    first = here.start()
    first.wait_ready()
    old = set(first.workers())
    first.kill()
    with socket.create_server(("127.0.0.1", 0)) as foreign:
        assert here.start(admin=foreign.getsockname()[1]).process.wait(timeout=20) == 2
    assert here.orphans() == old
    request(first, 3)


def test_an_older_supervisor_takes_over_from_a_newer_one_that_died(here: Host) -> None:
    first = here.start(workers=1)
    first.wait_ready()
    second = here.start(workers=1, admin=here.free_port())
    second.wait_ready()
    second.kill()
    until(lambda: len(here.orphans()) == 1, "the worker of the second is an orphan")
    until(lambda: not here.orphans(), "the orphan has left, for the first serves again")
    request(first, 5)
    assert first.end() == 0


def test_sighup_reloads_and_says_what_came_of_it(here: Host) -> None:
    edge = here.start(workers=1)
    edge.wait_ready()
    edge.process.send_signal(signal.SIGHUP)
    until(lambda: edge.logged("configuration is what serves already"), "it says so")
    config = here.directory / "edge0.yaml"
    good = config.read_text()
    config.write_text(f"{good}security_headers: true\nregion: elsewhere\n".replace("region: here\n", ""))
    edge.process.send_signal(signal.SIGHUP)
    (said,) = until(lambda: edge.logged("configuration reloaded"), "it says so")
    assert said["needs_restart"] == ["region"]
    assert said["sha256"] == edge.json("/status")["config"]["sha256"]
    config.write_text(good + "drain: 5\nx: 1\n")
    edge.process.send_signal(signal.SIGHUP)
    (said,) = until(lambda: edge.logged("configuration refused; the one before serves on"), "it says so")
    assert [error.rpartition(": ")[0] for error in said["errors"]] == [f"{config}:15: drain", f"{config}:16: x"]
    request(edge, 1)
    assert edge.end() == 0


def test_sighup_to_both_of_two_supervisors_reloads_each(here: Host) -> None:
    edges = [here.start(workers=1, admin=here.free_port()) for _ in range(2)]
    for edge in edges:
        edge.wait_ready()
    for number, edge in enumerate(edges):
        with (here.directory / f"edge{number}.yaml").open("a") as file:
            file.write("security_headers: true\n")
        edge.process.send_signal(signal.SIGHUP)
    for edge in edges:
        until(lambda edge=edge: edge.logged("configuration reloaded"), "it is reloaded")
        request(edge, 3)
    assert [edge.counted() for edge in edges] == [6, 6]
    assert [edge.end() for edge in edges] == [0, 0]


def test_a_reload_that_is_asked_for_while_the_edge_starts_is_not_forgotten(here: Host) -> None:
    edge = here.start()
    until(lambda: edge.logged("edge starting"), "it has begun")
    with (here.directory / "edge0.yaml").open("a") as file:
        file.write("security_headers: true\n")
    edge.process.send_signal(signal.SIGHUP)
    edge.wait_ready()
    until(lambda: edge.logged("configuration reloaded"), "it is reloaded")
    until(lambda: edge.json("/status")["config"]["error"] is None, "nothing is wrong")
    request(edge, 3)
    assert edge.end() == 0


def test_a_port_in_use_is_named_and_nothing_is_started(here: Host) -> None:
    with socket.create_server(("127.0.0.1", 0)) as foreign:
        taken = foreign.getsockname()[1]
        edge = here.start(admin=taken)
        assert edge.process.wait(timeout=20) == 2
    assert edge.said() == f"edgeproxy: cannot listen on 127.0.0.1:{taken}: Address already in use\n"
    assert not here.state.exists()


def test_where_no_worker_can_start_the_edge_says_why_and_ends(here: Host) -> None:
    edges = [here.start(workers=1, admin=here.free_port()) for _ in range(2)]
    for edge in edges:
        edge.wait_ready()
    third = here.start(workers=1)
    assert third.process.wait(timeout=20) == 1
    assert "edgeproxy: no worker could start: " in third.said()
    assert "column" in third.said()
    request(edges[0], 5)
    assert [edge.end() for edge in edges] == [0, 0]


def test_an_address_of_an_edge_with_another_state_directory_is_refused(here: Host) -> None:
    edge = here.start(workers=1)
    edge.wait_ready()
    other = here.start(workers=1, state=here.directory / "other", admin=here.free_port())
    assert other.process.wait(timeout=20) == 2
    assert other.said() == (
        f"edgeproxy: cannot listen on 127.0.0.1:{here.port}: "
        f"another process does, which is no edge on the state directory {here.directory / 'other'}\n"
    )
    request(edge, 5)
    assert edge.end() == 0


def test_orphans_of_the_older_supervisor_serve_after_the_newer_one_has_ended(here: Host) -> None:
    first = here.start(workers=1)
    first.wait_ready()
    (worker,) = first.workers()
    second = here.start(workers=1, admin=here.free_port())
    second.wait_ready()
    assert second.end() == 0
    first.kill()
    until(lambda: here.orphans() == {worker}, "the worker of the first is an orphan")
    until(lambda: b"serving on until another one serves" in first.log.read_bytes(), "it knows")
    request(first, 5)
    assert here.orphans() == {worker}


def test_a_machine_whose_order_of_stores_is_unproven_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    # Logs of later tests would go where this one's standard error went, which is gone by then.
    monkeypatch.setattr(main.log, "configure", lambda process: None)
    settings = load_quick("http://127.0.0.1:1", listen="127.0.0.1:0", admin=None, rate=None, state=tmp_path / "state")
    assert main.run(settings, None) == 2
    assert "this machine is aarch64" in capsys.readouterr().err
    assert not (tmp_path / "state").exists()
