"""kill -9 of every part under load: counts survive, limits hold, and clients hardly notice."""

import time
from pathlib import Path

from loadtest.testbed.customers import WINDOW, people
from loadtest.testbed.edge import StartEdge
from loadtest.testbed.fault_load import Storm
from loadtest.testbed.upstream import Upstream

LIMIT = 600


def test_workers_killed_one_after_the_other_lose_no_count(
    start_edge: StartEdge, upstream: Upstream, tmp_path: Path
) -> None:
    begun = time.monotonic()
    edge = start_edge(**people(acme="pro"))
    with Storm(edge, upstream, tmp_path, steady="acme") as storm:
        for number in range(4):
            storm.kill_workers(edge.worker_pids()[number % 2])
            storm.go_on()
        storm.over()
    storm.assert_counted()
    storm.assert_held(LIMIT, 2)
    storm.assert_served_throughout()
    assert time.monotonic() - begun < WINDOW


def test_both_workers_killed_at_once_are_replaced_and_counts_are_kept(
    start_edge: StartEdge, upstream: Upstream, tmp_path: Path
) -> None:
    edge = start_edge(**people(acme="pro"))
    with Storm(edge, upstream, tmp_path, steady="acme") as storm:
        storm.kill_workers(*edge.worker_pids())
        storm.go_on()
        storm.over()
    storm.assert_counted()
    storm.assert_held(LIMIT, 2)
    for account in storm.accounts:
        assert account.refused == 0  # the supervisor holds the sockets: who connects meanwhile waits in their queue


def test_orphaned_workers_serve_until_a_new_supervisor_serves(
    start_edge: StartEdge, upstream: Upstream, tmp_path: Path
) -> None:
    begun = time.monotonic()
    edge = start_edge(**people(acme="pro"))
    with Storm(edge, upstream, tmp_path, steady="acme") as storm:
        orphans = storm.kill_supervisor()
        storm.go_on()  # served by orphans
        assert edge.supervisor.family() == orphans
        edge.start()
        storm.orphans_leave(orphans)
        storm.go_on()
        storm.kill_workers(edge.worker_pids()[0])
        storm.go_on()
        storm.over()
    assert edge.supervisor.family() == {edge.supervisor.pid, *edge.template_pids(), *edge.worker_pids()}
    storm.assert_counted()
    storm.assert_held(LIMIT, 4)  # two supervisors' workers side by side, for a moment
    storm.assert_served_throughout()
    assert time.monotonic() - begun < WINDOW


def test_killed_edge_resumes_from_its_state_directory(
    start_edge: StartEdge, upstream: Upstream, tmp_path: Path
) -> None:
    begun = time.monotonic()
    edge = start_edge(**people(acme="pro"))
    with Storm(edge, upstream, tmp_path, steady="acme") as storm:
        for workers in (2, 3):
            storm.kill_everything()
            edge.start(workers=workers)
            storm.go_on()
        storm.over()
    storm.assert_counted()
    storm.assert_held(LIMIT, 3)
    assert time.monotonic() - begun < WINDOW
