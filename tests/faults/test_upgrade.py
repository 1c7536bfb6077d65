"""A day of changes under load: the collector and three edges go to another version and back, Redis and PostgreSQL start
again. Clients retry nothing, and no request of theirs fails.
"""

import os
import re
import signal
import subprocess
import sys
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
import yaml

import edgeproxy
from edgeproxy.collector.database.schema import REVISION
from edgeproxy.wire import directory_signatures
from edgeproxy.wire.directory_signatures import Signer
from loadtest.testbed.collector import EDGE, Collector
from loadtest.testbed.customers import TIERS, key_line
from loadtest.testbed.edge import Edge
from loadtest.testbed.http_client import ask
from loadtest.testbed.load_clients import Load, Plan
from loadtest.testbed.postgresql import Postgresql, programs
from loadtest.testbed.process import ROOT, Process, kill
from loadtest.testbed.redis import SERVER, Redis
from loadtest.testbed.upstream import Upstream
from loadtest.testbed.waiting import until
from tests.support.chart import render
from tests.support.kubelet import Pod, Service, ready_pods, roll_out
from tests.support.made_up_versions import BEFORE, unpack_version_after, unpack_version_before

RATE_MIN = 200.0
"""The lowest rate of requests per second that clients send."""
CUSTOMERS = ("acme", "bolt")
"""Both customers have limits shared by edges. The load stays below the limits."""


@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.skipif(programs() is None or SERVER is None, reason="needs PostgreSQL and Redis on this machine")
def test_upgrade_and_downgrade_of_all_parts_fail_no_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A forked process would run the sources of the tests, and ignore its own version.
    monkeypatch.setattr(Process, "forks", False)
    unpack_version_before(tmp_path / "before")
    unpack_version_after(tmp_path / "after")
    new = {"PYTHONPATH": str(tmp_path / "after"), "PYTHONSAFEPATH": "1"}
    old = new | {"PYTHONPATH": str(tmp_path / "before")}

    with ExitStack() as ends:
        postgresql = ends.enter_context(closing(Postgresql(durable=True)))
        redis = ends.enter_context(Redis(tmp_path, "--appendonly", "yes", "--appendfsync", "always"))
        upstream = Upstream(tmp_path / "upstream")
        ends.callback(upstream.stop)
        directory_signatures.create_key_file(tmp_path / "directory.key")
        url, owner = postgresql.empty_database_of_owner()
        collector = Collector(
            tmp_path / "collector",
            url,
            directory={"key": str(tmp_path / "directory.key")},
            customers={},
            tiers={**TIERS, "shared": {"limits": [{"rate": "1000000/min"}]}},
        )
        ends.callback(collector.close)
        collector.write()

        def command(environ: dict[str, str], *arguments: str | Path) -> None:
            words = [sys.executable, "-m", "edgeproxy", *map(str, arguments)]
            owned = {"EDGEPROXY_DATABASE_OWNER": owner}
            whole = {**os.environ, **environ, **owned}
            done = subprocess.run(words, env=whole, check=False, capture_output=True, text=True)
            assert done.returncode == 0, done.stdout + done.stderr

        def start_collector(environ: dict[str, str], version: str) -> None:
            collector.environ = environ
            collector.start()
            assert collector.get("/v1/openapi.json").json()["info"]["version"] == version

        command(old, "database", "migrate", "-c", collector.file)
        people = tmp_path / "people.yaml"
        described = {
            "customers": {name: {"tier": "shared"} for name in CUSTOMERS},
            "keys": [key_line(name) for name in CUSTOMERS],
        }
        people.write_text(yaml.safe_dump({"include": [str(collector.file)], **described}))
        command(old, "import", "-c", people)
        start_collector(old, BEFORE)
        hub = tmp_path / "hub.yaml"
        hub.write_text(yaml.safe_dump({"hub": redis.url}))
        command(old, "hub", "load", "-c", hub)

        manifests = render(
            tmp_path,
            trust=Signer.load(tmp_path / "directory.key").public_key,
            tiers={"tiers": collector.settings["tiers"]},
            edge={
                "settings": {"upstreams": {"api": {"endpoints": [f"http://127.0.0.1:{upstream.port}"]}}},
                "preStopSeconds": 2,
                "autoscaling": {"enabled": False},
            },
            collector={"url": f"http://127.0.0.1:{collector.port}"},
        )
        secrets = {"HUB_URL": redis.url, "EDGE_TOKEN": EDGE}
        pods = [
            Pod(
                tmp_path / f"pod-{number}",
                manifests["StatefulSet", "acme-edge"],
                manifests["ConfigMap", "acme-edge"]["data"],
                old | secrets,
            )
            for number in range(3)
        ]
        service = ends.enter_context(Service())
        ends.enter_context(ready_pods(service, pods))

        def roll_out_version(environ: dict[str, str], version: str) -> None:
            for pod in pods:
                pod.environ = environ | secrets
            roll_out(service, pods)
            assert show_all(rf'edge_build_info{{.*version="{re.escape(version)}"')

        def show_all(sample: str) -> bool:
            shown = (ask(pod.admin, "/metrics").body.decode() for pod in pods)
            return all(re.search(f"^{sample}", metrics, re.MULTILINE) is not None for metrics in shown)

        until(lambda: show_all("edge_hub_up 1"), "edges share their limits")
        load = Load(tmp_path, "clients", Plan(service.port, [*CUSTOMERS], ["/v1/x?wait=20"], connections=16))
        collector.end()
        command(new, "database", "migrate", "-c", collector.file)
        start_collector(new, edgeproxy.__version__)
        roll_out_version(new, edgeproxy.__version__)
        redis.kill()
        until(lambda: show_all("edge_hub_up 0"), "edges have noticed that the hub is away")
        redis.start()
        until(lambda: show_all("edge_hub_up 1"), "edges share their limits again")
        postgresql.restart()
        until(collector.ready, "the collector has its database again", seconds=60)
        roll_out_version(old, BEFORE)
        collector.end()
        command(new, "database", "downgrade", REVISION, "-c", collector.file)
        start_collector(old, BEFORE)
        account = load.finish()

        print(account)
        assert account.reset == account.refused == account.wrong == 0
        assert not account.lost.get("acme")
        assert not account.lost.get("bolt")
        assert {status for statuses in account.answers.values() for status in statuses} == {"200"}
        answered = {name: account.answered(name, 200) for name in CUSTOMERS}
        assert sum(answered.values()) / account.seconds >= RATE_MIN

        def count_in_ledger() -> dict[str, int]:
            return {row["customer"]: row["value"] for row in collector.usage(by="customer")["rows"]}

        until(lambda: count_in_ledger() == answered, "the ledger has each request once", seconds=60)
        assert upstream.seen()["billable"] == answered
        command(old, "verify", "-c", collector.file)


@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.skipif(programs() is None or SERVER is None, reason="needs PostgreSQL and Redis on this machine")
def test_an_edge_is_upgraded_and_each_process_killed_under_full_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Upgrade one edge, then kill workers, supervisor, collector, Redis and PostgreSQL one after the other.

    Both versions of the edge serve side by side until the old one is stopped. Clients wait for an answer, then send
    again at once.
    """
    monkeypatch.setattr(Process, "forks", False)
    unpack_version_before(tmp_path / "before")
    with ExitStack() as ends:
        postgresql = ends.enter_context(closing(Postgresql(durable=True)))
        redis = ends.enter_context(Redis(tmp_path, "--appendonly", "yes", "--appendfsync", "always"))
        upstream = Upstream(tmp_path / "upstream")
        ends.callback(upstream.stop)
        collector = Collector(tmp_path / "collector", postgresql.database_of_owner())
        ends.callback(collector.close)
        collector.start()
        edge = Edge(
            tmp_path / "edge",
            upstream.port,
            hub=redis.url,
            usage={"collector": f"http://127.0.0.1:{collector.port}", "token": EDGE, "every": "1s"},
            tiers={"shared": {"limits": [{"rate": "1000000/min"}]}},
            customers={"acme": {"tier": "shared"}},
            keys=[key_line("acme")],
        )
        ends.callback(edge.close)
        edge.environ = {"PYTHONPATH": str(tmp_path / "before"), "PYTHONSAFEPATH": "1"}
        edge.start()
        plan = Plan(edge.port, ["acme"], ["/"], connections=16)

        def count_in_ledger() -> int:
            return sum(row["value"] for row in collector.usage(by="customer")["rows"])

        def go_on(requests: int = 5_000) -> None:
            expected = upstream.seen()["received"].get("acme", 0) + requests
            until(lambda: upstream.seen()["received"].get("acme", 0) >= expected, "requests arrive", seconds=60)

        load = Load(tmp_path, "upgrade", plan)
        go_on()
        old = edge.supervisor
        edge.environ = {"PYTHONPATH": str(ROOT), "PYTHONSAFEPATH": "1"}
        edge.begin()
        until(lambda: edge.output.count('"event": "edge serving"') == 2, "both serve", seconds=60)
        go_on()
        assert old.wait_after(signal.SIGTERM, 30) == 0
        go_on()
        account = load.finish()
        print(account)
        assert account.reset == account.refused == account.wrong == 0
        answered = account.answered("acme", 200)
        assert account.answers == {"acme": {"200": answered}}
        until(lambda: count_in_ledger() == answered, "the ledger has each request once", seconds=60)

        load = Load(tmp_path, "kills", plan)
        go_on()
        for pid in edge.worker_pids():
            kill(pid)
            go_on()
        kill(edge.supervisor.pid)
        edge.supervisor.wait(10)
        go_on()  # counted by its workers
        edge.start()
        go_on()
        for server in (collector, redis, postgresql):
            server.kill()
            go_on()
            server.start()
            go_on()
        account = load.finish()
        print(account)
        assert account.refused == account.wrong == 0
        assert set(account.answers["acme"]) == {"200"}
        until(lambda: collector.ready() and edge.status()["usage"]["unshipped"] == 0, "all is shipped", seconds=120)
        answered += account.answered("acme", 200)
        # Requests in flight in a killed worker may have been counted.
        assert answered <= count_in_ledger() <= answered + account.lost.get("acme", 0)
        assert upstream.seen()["billable"]["acme"] >= count_in_ledger()
