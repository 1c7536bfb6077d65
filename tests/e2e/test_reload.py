"""The configuration changes while real workers serve: no client notices, and every request is counted."""

import asyncio
import os
import resource
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from random import Random
from typing import Any

import aiohttp
import pytest
import yaml

from loadtest.testbed.authority import Authority
from loadtest.testbed.customers import UNLIMITED, key_line, key_of, people
from loadtest.testbed.edge import COMMAND, Edge, StartEdge, total
from loadtest.testbed.http_client import Wire, ask
from loadtest.testbed.load_clients import Load, Plan
from loadtest.testbed.ports import HOST, Ports
from loadtest.testbed.process import Process, kill
from loadtest.testbed.upstream import Upstream
from loadtest.testbed.waiting import until, within
from tests.e2e.site import Site
from tests.support.tls_peers import TlsPeer

RELOADS = 50
FLIP = b"GET /flip HTTP/1.1\r\nHost: a\r\nX-API-Key: %b\r\n\r\n" % key_of(UNLIMITED).encode()

ALL = {"name": "all", "path": "/*", "upstream": "api"}
POSTED = {"name": "posted", "path": "/flip", "methods": ["POST"], "upstream": "api"}
"""With this route, a GET of /flip is a 405, which the edge itself answers."""


def reloads(edge: Edge) -> dict[str, float]:
    """Return the number of reloads by result, without zeros."""
    counted = {
        result: total(edge.metrics(), "edge_config_reloads_total", result=result)
        for result in ("ok", "unchanged", "refused", "failed")
    }
    return {result: count for result, count in counted.items() if count}


def ok(edge: Edge) -> float:
    return total(edge.metrics(), "edge_config_ok")


def test_fifty_reloads_under_load_fail_no_request(start_edge: StartEdge, tmp_path: Path) -> None:
    edge = start_edge(**people(acme="free"))
    load = Load(tmp_path, "load", Plan(edge.port, ["acme"], ["/", "/flip"]))
    with Wire(edge.port) as wire:
        for number in range(RELOADS):
            routes = [ALL, POSTED] if number % 2 == 0 else [ALL]
            answer = edge.reload(routes=routes)
            assert (answer.status, answer.json()["result"]) == (200, "ok"), answer
            # Answers after the reload follow the new configuration, also on older connections.
            for _ in range(4):
                wire.send(FLIP)
                assert wire.hear().status == (405 if number % 2 == 0 else 200)
                assert edge.ask("/flip", key=key_of(UNLIMITED)).status == (405 if number % 2 == 0 else 200)
    account = load.finish()
    assert account.answers["acme"].keys() == {"200", "405"}
    assert (account.lost, account.reset, account.closed, account.refused, account.wrong) == ({}, 0, 0, 0, 0)
    assert edge.usage()["acme"] == account.answered("acme", 200)
    assert total(edge.metrics(), "edge_requests_total", code="405") == account.answered("acme", 405) + 4 * RELOADS
    assert reloads(edge) == {"ok": RELOADS}
    assert ok(edge) == 1


def test_a_worker_without_a_free_descriptor_is_reloaded(start_edge: StartEdge) -> None:
    edge = start_edge(**people(acme="free"), workers=1)
    (worker,) = edge.worker_pids()
    most = len(os.listdir(f"/proc/{worker}/fd")) + 20
    resource.prlimit(worker, resource.RLIMIT_NOFILE, (most, most))
    with ExitStack() as clients:
        # Clients that send half a head: each holds a descriptor, and those beyond the bound are turned away.
        for _ in range(most):
            clients.enter_context(Wire(edge.port)).send(b"GET / HTTP/1.1\r\n")
        until(lambda: len(os.listdir(f"/proc/{worker}/fd")) == most, "no descriptor is left")
        answer = edge.reload(routes=[ALL, POSTED])
        assert answer.json()["result"] == "ok", answer
    with Wire(edge.port) as wire:
        wire.send(FLIP)
        assert wire.hear().status == 405
    assert edge.worker_pids() == [worker]
    assert edge.reload(routes=[ALL]).json()["result"] == "ok"


def test_counts_of_removed_routes_customers_and_meters_stay(start_edge: StartEdge) -> None:
    meters = {"requests": {"count": "requests"}, "wins": {"count": "requests", "when": "success"}}
    goes = {"name": "goes", "path": "/goes/*", "upstream": "api"}
    edge = start_edge(**people(acme="free", gone="basic"), meters=meters, routes=[ALL, goes])
    for path in ("/goes/a", "/stays"):
        for customer in ("acme", "gone"):
            for _ in range(3):
                assert edge.ask(path, key=key_of(customer)).status == 200
    rows = sorted(map(tuple, ask(edge.admin, "/usage").json()["rows"]))
    counted = total(edge.metrics(), "edge_requests_total", route="goes")
    assert (len(rows), counted) == (8, 6)
    assert edge.reload(**people(acme="free"), meters={"requests": {"count": "requests"}}, routes=[ALL]).status == 200
    assert sorted(map(tuple, ask(edge.admin, "/usage").json()["rows"])) == rows
    metrics = edge.metrics()
    assert total(metrics, "edge_requests_total", route="goes") == 6
    assert total(metrics, "edge_usage_counted_total", meter="wins") == 12
    assert edge.ask("/goes/a", key=key_of("gone")).status == 401
    assert ask(edge.admin, "/limits/gone").status == 404
    assert edge.ask("/goes/a", key=key_of("acme")).status == 200
    # As if it had never been away.
    assert edge.reload(**people(acme="free", gone="basic"), meters=meters, routes=[ALL, goes]).status == 200
    assert edge.ask("/goes/a", key=key_of("gone")).status == 200
    assert edge.limit("gone")["used"] == 7
    assert total(edge.metrics(), "edge_requests_total", route="goes") == 7
    assert total(edge.metrics(), "edge_usage_counted_total", meter="wins") == 13


def test_websocket_and_event_stream_survive_the_removal_of_their_route(start_edge: StartEdge) -> None:
    ports = Ports(2)
    edge = start_edge(port=ports.numbers[0])
    elsewhere = {"api": {"endpoints": [f"http://{HOST}:{ports.numbers[1]}"]}}
    here = edge.settings["upstreams"]
    url = f"http://{HOST}:{edge.port}"

    async def scene() -> None:
        site = Site()
        headers = {"X-API-Key": key_of(UNLIMITED)}
        async with (
            site.open(ports.numbers[0]),
            aiohttp.ClientSession(headers=headers) as session,
            session.ws_connect(f"{url}/socket", protocols=["echo"]) as tunnel,
            session.get(f"{url}/events") as events,
        ):
            assert await events.content.readline() == b"retry: 10\n"
            for number, upstreams in enumerate((elsewhere, here, elsewhere)):
                answer = await asyncio.to_thread(edge.reload, upstreams=upstreams)
                assert (answer.status, answer.json()["result"]) == (200, "ok")
                await tunnel.send_str(f"still {number}")
                assert await tunnel.receive_str() == f"still {number}"
                site.cue.set()
                while await events.content.readline() != b"data: event %d\n" % number:
                    assert not events.content.at_eof()
            async with session.get(f"{url}/cookies") as answer_now:
                assert answer_now.status == 502, "no service listens at the new address"
            await tunnel.send_str("bye")
            assert (await tunnel.receive()).data == 4001

    try:
        asyncio.run(within(30, scene()))
    finally:
        ports.close()
    assert edge.usage() == {UNLIMITED: 2}


@pytest.mark.parametrize("seed", range(3))
def test_a_worker_that_is_killed_in_the_middle_of_a_reload_is_no_reason_to_stop(
    start_edge: StartEdge, seed: int
) -> None:
    random = Random(seed)
    # Enough to read that preparing takes a while.
    many = {f"customer-{n}": {"tier": "basic"} for n in range(3000)}
    edge = start_edge(customers={UNLIMITED: {"tier": "free"}, **many})
    results: list[Any] = []
    for number in range(4):
        before = set(edge.worker_pids())
        routes = [ALL, POSTED] if number % 2 == 0 else [ALL]
        edge.write(routes=routes)
        reload = threading.Thread(target=lambda: results.append(ask(edge.admin, "/reload", method="POST")))
        reload.start()
        reload.join(random.uniform(0, 0.5))
        victim = random.choice(sorted(before))
        kill(victim)
        reload.join(30)
        answer = results[-1]
        assert (answer.status, answer.json()["result"]) == (200, "ok"), answer
        until(lambda gone=victim: len(set(edge.worker_pids()) - {gone}) == 2 and edge.ready(), "the worker is replaced")
        for _ in range(20):
            assert edge.ask("/flip", key=key_of(UNLIMITED)).status == (405 if number % 2 == 0 else 200)
    assert reloads(edge) == {"ok": 4}


def test_reload_names_settings_that_need_a_restart_and_applies_the_rest(start_edge: StartEdge) -> None:
    edge = start_edge()
    answer = edge.reload(region="other", workers=3, state="elsewhere", routes=[ALL, POSTED])
    assert answer.json() == {"result": "ok", "needs_restart": ["region", "workers", "state"]}
    status = edge.status()
    assert (status["region"], len(status["workers"])) == ("eu-test", 2)
    assert status["config"]["needs_restart"] == ["region", "workers", "state"]
    assert edge.ask("/flip", key=key_of(UNLIMITED)).status == 405
    echo = edge.ask("/?echo=1", key=key_of(UNLIMITED)).json()
    assert ["X-Edge-Region", "eu-test"] in echo["fields"]
    for pid in edge.worker_pids():
        kill(pid)
        until(lambda pid=pid: pid not in edge.worker_pids() and edge.ready(), "the worker is replaced")
    assert edge.ask("/flip", key=key_of(UNLIMITED)).status == 405, "new workers begin with it"
    assert edge.usage() == {UNLIMITED: 1}


def test_an_access_log_that_cannot_be_written_is_refused(start_edge: StartEdge, tmp_path: Path) -> None:
    edge = start_edge()
    (error,) = edge.reload(access_log=str(tmp_path / "gone" / "log")).json()["errors"]
    assert error.startswith(f"{edge.file}:")
    assert f": access_log: {tmp_path}/gone/log cannot be written: " in error
    assert edge.reload(access_log=str(tmp_path / "log")).json()["result"] == "ok"
    assert edge.ask("/logged", key=key_of(UNLIMITED)).status == 200
    log = tmp_path / "log"
    until(lambda: log.exists() and b"/logged" in log.read_bytes(), "the request is logged")


def test_an_upstream_serves_at_once_with_the_trust_of_the_same_reload(start_edge: StartEdge, tmp_path: Path) -> None:
    authority = Authority(tmp_path, "site")
    edge = start_edge()
    with TlsPeer(authority.issue(HOST)) as peer:
        upstream = {"endpoints": [f"https://{HOST}:{peer.port}"], "health": {"path": "/health", "every": "1h"}}
        upstreams = {**edge.settings["upstreams"], "secure": upstream}
        routes = [{"name": "secure", "path": "/secure", "upstream": "secure"}, ALL]
        assert edge.reload(upstreams=upstreams, routes=routes).json()["result"] == "ok"
        assert edge.ask("/secure", key=key_of(UNLIMITED)).status == 503, "the new authority trusts no client"
        assert edge.reload(trust={"files": str(authority.file)}).json()["result"] == "ok"
        assert edge.ask("/secure", key=key_of(UNLIMITED)).status == 200
        assert edge.reload(trust={}).json()["result"] == "ok"
        assert edge.ask("/secure", key=key_of(UNLIMITED)).status == 503
        moved = {**upstreams, "other": {**upstream, "pool": 7}}
        routes = [{"name": "other", "path": "/other", "upstream": "other"}, *routes]
        assert (
            edge.reload(upstreams=moved, routes=routes, trust={"files": str(authority.file)}).json()["result"] == "ok"
        )
        for path in ("/other", "/secure"):
            assert edge.ask(path, key=key_of(UNLIMITED)).status == 200


@pytest.fixture
def watched(tmp_path: Path, upstream: Upstream) -> Iterator[tuple[Edge, Path]]:
    """An edge that watches its files behind a symbolic link, and the folder of the link."""
    folder = tmp_path / "edge"
    with closing(Edge(folder, upstream.port)) as edge:
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
            (tmp_path / name / "edge.yaml").write_text(yaml.safe_dump(edge.settings))
        (tmp_path / "current").symlink_to("one")
        file = tmp_path / "current" / "edge.yaml"
        edge.supervisors.append(Process([*COMMAND, file, "--watch"], folder / "log", family=edge.family_name))
        until(edge.ready, "the edge is ready")
        yield edge, tmp_path


def test_option_watch_reloads_on_changes_of_all_files(watched: tuple[Edge, Path]) -> None:
    edge, folder = watched
    other = dict(edge.settings, routes=[ALL, POSTED], include=["more.yaml"], customers={}, keys=[])
    (folder / "two" / "edge.yaml").write_text(yaml.safe_dump(other))
    more = {"customers": {UNLIMITED: {"tier": "free"}, "new": {"tier": "free"}}, "keys": [key_line(UNLIMITED)]}
    (folder / "two" / "more.yaml").write_text(yaml.safe_dump(more))
    (folder / "next").symlink_to("two")
    (folder / "next").rename(folder / "current")
    until(lambda: edge.ask("/flip", key=key_of(UNLIMITED)).status == 405, "the new target of the link serves")
    assert edge.ask("/", key=key_of("new")).status == 401
    more["keys"].append(key_line("new"))
    text = yaml.safe_dump(more)
    (folder / "two" / "more.yaml").write_text(text[: text.index("customer: new")])
    until(lambda: reloads(edge) == {"ok": 1, "refused": 1}, "half of it is refused")
    assert ok(edge) == 0
    (folder / "two" / "more.yaml").write_text(text)
    until(lambda: edge.ask("/", key=key_of("new")).status == 200, "all of it serves")
    assert (ok(edge), reloads(edge)) == (1, {"ok": 2, "refused": 1})
