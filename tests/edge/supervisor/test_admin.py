"""The admin listener's answers, over tables that are filled by a worker's own means."""

import sqlite3
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
import uvloop
from aiohttp import ClientSession

import edgeproxy
from edgeproxy.base.build import describe_build
from edgeproxy.base.tasks import Tasks
from edgeproxy.config.edge.load import load_edge, try_load_edge
from edgeproxy.config.edge.settings import EdgeSettings
from edgeproxy.config.load import Loaded
from edgeproxy.edge.counters.file import KINDS
from edgeproxy.edge.counters.store import Store
from edgeproxy.edge.directory.directories import Directories
from edgeproxy.edge.limits.policies import Policies
from edgeproxy.edge.limits.route_limits import build_rule
from edgeproxy.edge.metrics import METRICS
from edgeproxy.edge.supervisor.accounting import Accounting
from edgeproxy.edge.supervisor.acme import AcmeRenewals
from edgeproxy.edge.supervisor.admin import Admin
from edgeproxy.edge.supervisor.certificates import Certificates
from edgeproxy.edge.supervisor.destinations import Destinations
from edgeproxy.edge.supervisor.health import ProbeTarget
from edgeproxy.edge.supervisor.issuers import IssuerKeyFetcher
from edgeproxy.edge.supervisor.reload import Reloads
from edgeproxy.edge.supervisor.status import Status
from edgeproxy.edge.supervisor.table_reader import TableReader
from edgeproxy.edge.supervisor.traces import Traces
from edgeproxy.edge.supervisor.upstreams import Upstreams
from edgeproxy.edge.supervisor.workers import Workers
from loadtest.testbed.authority import Authority
from tests.edge.supervisor.scraped import families, value
from tests.edge.supervisor.standing_in import start

CONFIG = """
region: eu-west
listen: {{address: 127.0.0.1:0, tls: {{cert: {cert}, key: {key}}}}}
workers: 2
admin: 127.0.0.1:0
state: {state}
tiers:
  basic: {{limits: [{{rate: 60/min}}, {{rate: 1000/h}}]}}
  open:
    concurrency: 5
    priority: 7
    quotas: [{{meter: requests, per: day, included: 9, cap: hard}}, {{meter: requests, per: month, included: 90}}]
customers:
  acme: {{tier: basic}}
  umbrella: {{tier: basic, limits: [{{name: own, rate: 7/10s}}]}}
  free: {{tier: open, concurrency: none, quotas: []}}
upstreams:
  api: {{endpoints: [http://127.0.0.1:9]}}
  checked: {{endpoints: [http://10.0.0.1:9], health: {{path: /healthz}}, breaker: {{pending: 10}}}}
routes:
  - {{name: v1, path: /v1/*, upstream: api}}
  - {{name: export, path: /export, upstream: api, auth: none, limits: [{{rate: 5/min, mode: shadow}}]}}
"""


class Room:
    """A supervisor's side of a state directory, and one worker's."""

    def __init__(self, directory: Path) -> None:
        path = self.path = directory / "edge.yaml"
        self.cert, key = Authority(directory).issue("api.test", days=90)
        path.write_text(CONFIG.format(cert=self.cert, key=key, state=directory / "state"))
        self.settings: EdgeSettings = load_edge(path, {})
        self.store = Store.prepare(directory / "state", workers=2, customers=1000, addresses=1000)
        self.worker = Store.join(directory / "state")

    def charge(self, customer: str, times: int) -> None:
        """Requests of this customer that all of its limits let pass."""
        known = self.settings.customers[customer]
        limits = self.settings.tiers[known.tier].limits if known.limits is None else known.limits
        now = monotonic() + self.worker.offset
        for limit in limits:
            policy = Policies(self.worker.customers).get_policy(build_rule(limit, limit.scope), customer.encode())
            for _ in range(times):
                assert policy.left(now) > 0
                policy.charge()


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    made = Room(tmp_path)
    yield made
    made.worker.close()
    made.store.close()


Client = ClientSession


async def nobody(*command: object) -> Any:
    """In the place of a hub."""
    raise AssertionError(f"it was asked {command}")


def ask(
    room: Room,
    scene: Callable[[Client, Status, Workers], Awaitable[None]],
    read: Callable[[], Loaded] | None = None,
    apply: Sequence[str] = (),
) -> None:
    """Run `scene` with a client of the admin listener. No worker process is started.

    A reload calls `read` to load the files. `apply` returns the reason why workers do not serve the loaded
    configuration.
    """

    async def ill(target: ProbeTarget) -> str:
        return "status 500"

    async def play() -> None:
        settings = room.settings
        table_reader = TableReader(room.store)
        workers = Workers(settings.workers, ["/nonexistent/worker"], (), start())
        upstreams = Upstreams(settings.upstreams, workers.publish, ill)
        certificates = Certificates(settings, lambda: None)
        await certificates.check()
        await upstreams.begin(20.0)
        tasks = Tasks()

        async def applied(_: EdgeSettings) -> Sequence[str]:
            return apply

        reloads = Reloads(settings, read, applied)
        tasks.start("reload", reloads.run())
        accounting = Accounting(room.store, table_reader, settings.region, Destinations.from_settings(settings))
        people = Directories(settings, nobody, workers.add)
        traces = Traces(settings.tracing, settings.region)
        issuers = IssuerKeyFetcher(settings.state, settings.issuers, workers.publish)
        acme = AcmeRenewals(
            settings, lambda: settings, lambda: True, workers.publish, workers.wait_until_challenges_served
        )
        status = Status(
            reloads, workers, table_reader, upstreams, certificates, accounting, people, traces, issuers, acme
        )
        admin = Admin(settings)
        await admin.open(status, table_reader, reloads)
        async with ClientSession(f"http://{admin.address}") as client:
            await scene(client, status, workers)
        await admin.close()
        await upstreams.end()
        await tasks.cancel()

    uvloop.run(play())


async def body(client: Client, path: str, status: int = 200) -> Any:
    answer = await client.get(path)
    assert answer.status == status
    return await answer.json(content_type="application/json" if status < 400 else "application/problem+json")


def test_readiness_says_why_not(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    async def readiness(client: Client) -> tuple[int, Any]:
        answer = await client.get("/readyz")
        return answer.status, await answer.json()

    async def scene(client: Client, status: Status, workers: Workers) -> None:
        why = "starting: 0 of 2 workers are ready"
        assert await readiness(client) == (503, {"ready": False, "reason": why})
        status.lacking = 2
        why += "; 2 wait until workers of supervisors that were killed have finished and left"
        assert await readiness(client) == (503, {"ready": False, "reason": why})
        status.phase = "serving"
        why = "none of 2 workers is ready"
        assert await readiness(client) == (503, {"ready": False, "reason": why})
        monkeypatch.setattr(Workers, "ready", 1)
        assert await readiness(client) == (200, {"ready": True, "reason": None})
        status.phase = "draining"
        assert await readiness(client) == (503, {"ready": False, "reason": "draining"})

    ask(room, scene)


def test_metrics_come_from_the_tables_and_the_supervisor(room: Room) -> None:
    worker = room.worker
    worker.meters.counter("edge_requests_total", "v1", "basic", "200").add(3)
    worker.meters.counter("edge_table_full_total", "customers").add(1)
    worker.meters.gauge("edge_connections", "client").set(4)
    worker.meters.histogram("edge_request_seconds", "v1").observe(0.003)
    worker.meters.settle()
    worker.billing.counter("acme", "requests", "v1").add(3)
    worker.billing.counter("umbrella", "requests", "v1").add(4)
    room.charge("acme", 1)

    async def scene(client: Client, status: Status, workers: Workers) -> None:
        answer = await client.get("/metrics")
        assert answer.headers["Content-Type"].startswith("text/plain; version=")
        found = families(text=await answer.text())
        assert found.keys() == METRICS.keys()
        assert value(found["edge_requests_total"], route="v1", tier="basic", code="200") == 3
        assert value(found["edge_table_full_total"], table="customers") == 1
        assert value(found["edge_connections"], side="client") == 4
        assert value(found["edge_usage_counted_total"], meter="requests") == 7
        rows = {sample.labels["table"]: sample.value for sample in found["edge_table_rows"].samples}
        assert rows == {"customers": 2, "addresses": 0, "end_users": 0, "quotas": 0, "usage": 2, "metrics": 4}
        capacity = {sample.labels["table"]: sample.value for sample in found["edge_table_capacity"].samples}
        assert capacity == {
            **dict.fromkeys(("customers", "addresses", "quotas", "usage"), 1000),
            "end_users": 20_000,
            "metrics": 4096,
        }
        assert value(found["edge_config_ok"]) == 1
        assert value(found["edge_worker_restarts_total"]) == 0

    ask(room, scene)


def test_metrics_are_zero_before_the_first_count(room: Room) -> None:
    async def scene(client: Client, status: Status, workers: Workers) -> None:
        answer = families(text=await (await client.get("/metrics")).text())
        assert [value(answer["edge_connections"], side=side) for side in ("client", "upstream")] == [0, 0]
        assert value(answer["edge_usage_counted_total"], meter="requests") == 0
        tables = {sample.labels["table"]: sample.value for sample in answer["edge_table_full_total"].samples}
        assert tables == dict.fromkeys(KINDS, 0)
        refused = answer["edge_rate_limited_total"].samples
        assert {
            tuple(sample.labels[label] for label in ("tier", "policy", "mode")): sample.value for sample in refused
        } == {
            ("basic", "basic", "enforce"): 0,
            ("basic", "basic-2", "enforce"): 0,
            ("basic", "export", "shadow"): 0,
            ("open", "concurrency", "enforce"): 0,
            ("open", "requests-day", "enforce"): 0,
            ("open", "export", "shadow"): 0,
        }
        assert {sample.labels["priority"]: sample.value for sample in answer["edge_shed_total"].samples} == {
            "0": 0,
            "7": 0,
        }
        assert value(answer["edge_burst_credits_spent_total"], tier="open") == 0
        assert value(answer["edge_upstream_retries_total"], upstream="api") == 0
        assert value(answer["edge_upstream_pending"], upstream="checked") == 0
        assert value(answer["edge_dns_failures_total"], upstream="api") == 0

    ask(room, scene)


def test_a_table_that_cannot_be_read_is_named(room: Room) -> None:
    damaged = room.store.state / "usage.0.tbl"
    damaged.write_text("nothing")

    async def scene(client: Client, status: Status, workers: Workers) -> None:
        for path in ("/usage", "/status", "/metrics"):
            assert (await body(client, path, 500))["detail"].startswith(f"{damaged}: is 7 bytes long")
        assert (await client.get("/healthz")).status == 200

    ask(room, scene)


def test_usage_lists_every_row_in_order(room: Room) -> None:
    for customer, route, n in (("umbrella", "v1", 2), ("acme", "v2", 5), ("acme", "v1", 3)):
        room.worker.billing.counter(customer, "requests", route).add(n)

    async def scene(client: Client, status: Status, workers: Workers) -> None:
        rows = [["acme", "requests", "v1", 3], ["acme", "requests", "v2", 5], ["umbrella", "requests", "v1", 2]]
        assert await body(client, "/usage") == {"rows": rows}

    ask(room, scene)


def test_limits_show_the_usage_of_each_policy_of_a_tier(room: Room) -> None:
    room.charge("acme", 3)

    async def scene(client: Client, status: Status, workers: Workers) -> None:
        minute, hour = (await body(client, "/limits/acme"))["policies"]
        assert 1 <= minute.pop("reset_s") <= 60 + 60 / 28 + 1
        assert minute == {
            "name": "basic",
            "scope": "customer",
            "limit": 60,
            "window_s": 60.0,
            "used": 3,
            "remaining": 57,
            "mode": "enforce",
            "algorithm": "sliding_window",
        }
        assert (hour["name"], hour["used"], hour["remaining"]) == ("basic-2", 3, 997)

    ask(room, scene)


def test_an_unknown_customer_is_a_404(room: Room) -> None:
    async def scene(client: Client, status: Status, workers: Workers) -> None:
        problem = await body(client, "/limits/nobody", 404)
        assert problem["detail"] == "no customer is called 'nobody' here"
        assert problem.keys() == {"type", "code", "title", "status", "detail", "instance"}
        assert problem["code"] == "admin-not-found"

    ask(room, scene)


def test_a_directory_that_cannot_be_read_is_a_503(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(people: Directories, name: str) -> Any:
        raise sqlite3.DatabaseError("database disk image is malformed")

    monkeypatch.setattr(Directories, "find_customer", broken)

    async def scene(client: Client, status: Status, workers: Workers) -> None:
        problem = await body(client, "/limits/nobody", 503)
        assert problem["detail"].endswith("cannot be read: database disk image is malformed")
        assert "policies" in await body(client, "/limits/acme")

    ask(room, scene)


def test_unknown_paths_and_methods_are_problems(room: Room) -> None:
    async def scene(client: Client, status: Status, workers: Workers) -> None:
        assert "/metrics" in (await body(client, "/nothing", 404))["detail"]
        answer = await client.post("/usage")
        assert (answer.status, answer.content_type) == (405, "application/problem+json")
        assert (answer.headers["Cache-Control"], answer.headers["X-Content-Type-Options"]) == ("no-store", "nosniff")
        assert set(answer.headers["Allow"].split(",")) == {"GET", "HEAD"}

    ask(room, scene)


def test_reload_answers_with_its_result(room: Room) -> None:
    async def scene(client: Client, status: Status, workers: Workers) -> None:
        before = status.settings.sha256
        answer = await client.post("/reload")
        assert (answer.status, await answer.json()) == (200, {"result": "unchanged", "needs_restart": []})
        with room.path.open("a") as file:
            file.write("legacy_headers: true\nregion: elsewhere\n")
        room.path.write_text(room.path.read_text().replace("region: eu-west\n", "").replace("acme:", "other:"))
        answer = await client.post("/reload")
        assert (answer.status, await answer.json()) == (200, {"result": "ok", "needs_restart": ["region"]})
        assert status.settings.legacy_headers
        told = await body(client, "/status")
        assert told["region"] == "eu-west"
        assert told["config"].keys() == {"sha256", "loaded_at", "error", "needs_restart"}
        assert told["config"]["needs_restart"] == ["region"]
        assert told["config"]["sha256"] == status.settings.sha256 != before
        await body(client, "/limits/acme", 404)
        assert (await body(client, "/limits/other"))["policies"]

    ask(room, scene, lambda: try_load_edge(room.path, {}))


def test_a_reload_that_is_refused_is_a_422_and_known_until_a_good_one(room: Room) -> None:
    good = room.path.read_text()

    async def series(client: Client) -> dict[str, float]:
        answer = families(text=await (await client.get("/metrics")).text())
        results = ("ok", "unchanged", "refused", "failed")
        counted = {result: value(answer["edge_config_reloads_total"], result=result) for result in results}
        return {**counted, "well": value(answer["edge_config_ok"])}

    async def scene(client: Client, status: Status, workers: Workers) -> None:
        assert await series(client) == {"ok": 0, "unchanged": 0, "refused": 0, "failed": 0, "well": 1}
        began = time.time()
        room.path.write_text(f"{good}drain: 5\nnonsense: 1\n")
        lines = len(good.splitlines())
        answer = await client.post("/reload")
        assert answer.status == 422
        errors = (await answer.json())["errors"]
        assert [error.rpartition(": ")[0] for error in errors] == [
            f"{room.path}:{lines + 1}: drain",
            f"{room.path}:{lines + 2}: nonsense",
        ]
        trouble = (await body(client, "/status"))["config"]["error"]
        assert trouble["errors"] == errors
        assert trouble["result"] == "refused"
        assert began <= trouble["since"] == trouble["at"] <= time.time()
        room.path.unlink()
        again = await (await client.post("/reload")).json()
        assert again["errors"] == [
            f"{room.path}:1: file: {room.path} cannot be read: No such file or directory, name a file that can be read"
        ]
        later = (await body(client, "/status"))["config"]["error"]
        assert (later["since"], later["errors"]) == (trouble["since"], again["errors"])
        assert later["at"] > trouble["at"]
        assert await series(client) == {"ok": 0, "unchanged": 0, "refused": 2, "failed": 0, "well": 0}
        assert (await body(client, "/limits/acme"))["policies"]
        room.path.write_text(good)
        assert (await (await client.post("/reload")).json())["result"] == "unchanged"
        assert (await body(client, "/status"))["config"]["error"] is None
        assert await series(client) == {"ok": 0, "unchanged": 1, "refused": 2, "failed": 0, "well": 1}

    ask(room, scene, lambda: try_load_edge(room.path, {}))


def test_reload_without_a_file_answers_422_and_records_no_error(room: Room) -> None:
    async def scene(client: Client, status: Status, workers: Workers) -> None:
        answer = await client.post("/reload")
        assert answer.status == 422
        assert "without a file" in (await answer.json())["errors"][0]
        assert (await body(client, "/status"))["config"]["error"] is None

    ask(room, scene)


def test_a_reload_must_be_posted_and_not_while_the_edge_drains(room: Room) -> None:
    async def scene(client: Client, status: Status, workers: Workers) -> None:
        assert (await client.get("/reload")).status == 405
        status.phase = "draining"
        assert (await client.post("/reload")).status == 503

    ask(room, scene, lambda: try_load_edge(room.path, {}))


def test_a_failure_of_the_supervisors_own_is_a_500(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Store) -> None:
        raise OSError("the disk is gone")

    monkeypatch.setattr(Store, "usage_totals", broken)

    async def scene(client: Client, status: Status, workers: Workers) -> None:
        problem = await body(client, "/usage", 500)
        assert problem["detail"] == "the supervisor failed to answer; its log says more"

    ask(room, scene)


def test_status_reports_phase_tables_config_and_usage(room: Room) -> None:
    room.worker.billing.counter("acme", "requests", "v1").add(3)
    began = time.time()

    async def scene(client: Client, status: Status, workers: Workers) -> None:
        report = await body(client, "/status")
        assert began <= report["config"].pop("loaded_at") <= time.time()
        assert began <= report["usage"]["shipping"].pop("since") <= time.time()
        assert report == {
            "region": "eu-west",
            "version": edgeproxy.__version__,
            "build": describe_build(),
            "phase": "starting",
            "tables": {
                "customers": {"used": 0, "rows": 1000},
                "addresses": {"used": 0, "rows": 1000},
                "end_users": {"used": 0, "rows": 20_000},
                "quotas": {"used": 0, "rows": 1000},
                "usage": {"used": 1, "rows": room.store.usage.layout.rows},
                "metrics": {"used": 0, "rows": room.store.metrics.layout.rows},
            },
            "config": {"sha256": room.settings.sha256, "needs_restart": [], "error": None},
            "workers": [],
            "upstreams": {
                "api": [
                    {
                        "url": "http://127.0.0.1:9",
                        "why": "",
                        "addresses": [{"address": "127.0.0.1", "up": True, "why": ""}],
                    }
                ],
                "checked": [
                    {
                        "url": "http://10.0.0.1:9",
                        "why": "",
                        "addresses": [{"address": "10.0.0.1", "up": False, "why": "status 500"}],
                    }
                ],
            },
            "hub": {"url": "memory://", "state": "up", "age_s": 0},
            "directory": None,
            "usage": {
                "unshipped": 3,
                "unshipped_by_meter": {"requests": 3},
                "oldest_s": 0,
                "batches": 0,
                "edge": None,
                "watermark": None,
                "spool_bytes": 0,
                "shipping": {"state": "off", "why": ""},
                "sealing": None,
                "aside": [],
            },
        }

    ask(room, scene)


def test_connections_of_a_worker_are_read_from_its_column(room: Room) -> None:
    other = Store.join(room.store.state)
    room.worker.meters.gauge("edge_connections", "client").set(4)
    room.worker.meters.gauge("edge_connections", "upstream").set(1)
    other.meters.gauge("edge_connections", "client").set(2)

    async def scene() -> None:
        table_reader = TableReader(room.store)
        ours, others = room.worker.column, other.column
        assert ours is not None
        assert others is not None
        assert await table_reader.connections([ours, others]) == {ours: 4, others: 2}

    uvloop.run(scene())
    other.close()


def test_sums_over_large_tables_are_kept_for_a_while(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    counter = room.worker.billing.counter("acme", "requests", "v1")
    counter.add(1)

    async def scene() -> None:
        table_reader = TableReader(room.store)
        assert await table_reader.meters() == {"requests": 1}
        counter.add(1)
        assert await table_reader.meters() == {"requests": 2}
        monkeypatch.setattr("edgeproxy.edge.supervisor.table_reader.EXPENSIVE_SECONDS", 0.0)
        monkeypatch.setattr("edgeproxy.edge.supervisor.table_reader.CACHED_TIMES", 1e9)
        assert await table_reader.meters() == {"requests": 2}
        counter.add(1)
        assert await table_reader.meters() == {"requests": 2}

    uvloop.run(scene())
