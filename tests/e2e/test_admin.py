"""Figures for operators and dashboards are exact, whichever worker counted them."""

import json
from contextlib import ExitStack
from hashlib import sha256
from pathlib import Path
from signal import SIGKILL

import pytest
from typer.testing import CliRunner

from edgeproxy import cli
from edgeproxy.cli.running import TOKEN
from loadtest.testbed.customers import UNLIMITED, key_of, people
from loadtest.testbed.edge import Edge, StartEdge, total
from loadtest.testbed.http_client import Wire, ask
from loadtest.testbed.ports import HOST
from loadtest.testbed.waiting import until

ROUTES = [
    {"name": "open", "path": "/open/*", "upstream": "api", "auth": "none"},
    {"name": "all", "path": "/all/*", "upstream": "api", "methods": ["GET"]},
]


@pytest.fixture
def edge(start_edge: StartEdge) -> Edge:
    """An edge with nothing counted yet."""
    return start_edge(
        **people(acme=["30/min"]),
        routes=ROUTES,
        meters={"requests": {"count": "requests"}, "good": {"count": "requests", "when": "success"}},
    )


def test_every_request_is_counted_once_by_whichever_worker_served_it(edge: Edge) -> None:
    free, acme = key_of(UNLIMITED), key_of("acme")
    asked = [
        *[(b"GET /all/?size=10", free)] * 40,
        *[(b"GET /all/?status=404", free)] * 7,
        *[(b"GET /all/?status=302", free)] * 4,
        *[(b"GET /all/?status=503", free)] * 5,
        *[(b"GET /all/", acme)] * 33,
        *[(b"GET /open/", None)] * 6,
        *[(b"GET /nowhere", free)] * 3,
        *[(b"DELETE /all/", free)] * 2,
        *[(b"GET /all/", "unknown")] * 8,
        *[(b"GET /all/", None)] * 9,
    ]
    with ExitStack() as open_until:
        wires = spread(edge, open_until)
        for number, (line, key) in enumerate(asked):
            wire = wires[number % len(wires)]
            sent = b"" if key is None else b"X-API-Key: %b\r\n" % key.encode()
            wire.send(b"%b HTTP/1.1\r\nHost: api.test\r\n%b\r\n" % (line, sent))
            wire.hear()
        samples = edge.metrics()
        assert total(samples, "edge_connections", side="client") == len(wires)
    expected = {
        ("all", "free", "200"): 40,
        ("all", "free", "404"): 7,
        ("all", "free", "302"): 4,
        ("all", "free", "503"): 5,
        ("open", "-", "200"): 6,
    }
    for (route, tier, code), count in expected.items():
        assert total(samples, "edge_requests_total", route=route, tier=tier, code=code) == count, (route, tier, code)
    assert total(samples, "edge_requests_total", code="404") == 7 + 3
    assert total(samples, "edge_requests_total", code="405") == 2
    assert total(samples, "edge_requests_total", code="401") == 17
    passed = total(samples, "edge_requests_total", route="all", tier="own", code="200")
    assert 30 <= passed <= 32
    assert total(samples, "edge_requests_total", code="429") == 33 - passed
    assert total(samples, "edge_rate_limited_total", mode="enforce") == 33 - passed
    assert total(samples, "edge_requests_total") == len(asked)
    assert total(samples, "edge_auth_failures_total") == 17
    assert total(samples, "edge_usage_counted_total", meter="requests") == 57 + passed - 5 + 5
    assert total(samples, "edge_usage_counted_total", meter="good") == 50 + passed
    until(
        lambda: total(edge.metrics(), "edge_upstream_seconds_count", upstream="api") == 62 + passed,
        "each forwarded request is in the histogram",
    )
    assert edge.usage() == {UNLIMITED: 51, "acme": passed, "-": 6}
    rows = ask(edge.admin, "/usage").json()["rows"]
    assert [UNLIMITED, "good", "all", 44] in rows
    assert ["-", "requests", "open", 6] in rows


def spread(edge: Edge, open_until: ExitStack) -> list[Wire]:
    """Open connections until each worker has some."""
    wires: list[Wire] = []

    def shared() -> bool:
        wires.append(open_until.enter_context(Wire(edge.port)))
        return all(worker["connections"] for worker in edge.status()["workers"])

    until(shared, "each worker has connections")
    until(lambda: sum(worker["connections"] for worker in edge.status()["workers"]) == len(wires), "all are accepted")
    return wires


def test_histograms_are_whole_and_of_fixed_labels(edge: Edge) -> None:
    for _ in range(10):
        assert edge.ask("/all/?wait=20", key=key_of(UNLIMITED)).status == 200
    until(lambda: total(edge.metrics(), "edge_overhead_seconds_count") == 10, "all of it is in the map")
    samples = edge.metrics()
    for name, labels in (
        ("edge_request_seconds", {"route": "all"}),
        ("edge_upstream_seconds", {"upstream": "api"}),
        ("edge_overhead_seconds", {}),
    ):
        assert total(samples, f"{name}_count", **labels) == 10, name
        assert total(samples, f"{name}_bucket", le="+Inf", **labels) == 10
    assert total(samples, "edge_upstream_seconds_bucket", upstream="api", le="0.01") == 0
    # The upstream waits by its own timer, which may be early by a part of the time that a request takes to it.
    assert 0.19 <= total(samples, "edge_upstream_seconds_sum", upstream="api") < 5
    assert total(samples, "edge_overhead_seconds_sum") < total(samples, "edge_upstream_seconds_sum")


def test_labels_come_from_the_configuration_and_never_from_requests(edge: Edge) -> None:
    for word in ("mallory", "0123"):
        edge.ask(f"/all/{word}", method=word.upper() if word.isalpha() else "GET", key=word)
        edge.ask(f"/{word}", fields={"Host": f"{word}.test", "X-Customer-Id": word})
    text = ask(edge.admin, "/metrics").body.decode()
    assert "mallory" not in text.lower()
    assert "0123" not in text


def test_admin_address_needs_a_token_and_known_host_and_its_socket_the_owner(
    start_edge: StartEdge,
) -> None:
    edge = start_edge()
    address = f"{HOST}:{edge.admin}"
    secrets = {name: f"{name}-secret" for name in ("ops", "before", "gone")}
    digest = {name: sha256(secret.encode()).hexdigest() for name, secret in secrets.items()}
    guarded = {
        "address": address,
        "hosts": ["edge.internal"],
        "tokens": [
            {"name": "ops", "sha256": [digest["ops"], digest["before"]]},
            {"name": "gone", "sha256": digest["gone"], "expires": "2020-01-01"},
        ],
    }
    # A reload activates the tokens. Here every process on this host may still request it.
    assert edge.reload(admin=guarded).json()["needs_restart"] == []

    def holding(name: str, **fields: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {secrets[name]}", **fields}

    for path, fields, status in (
        ("/metrics", {}, 200),
        ("/status", {}, 401),
        ("/status", holding("gone"), 401),
        ("/status", holding("before", Host="edge.internal:1"), 200),
        ("/status", holding("ops", Host="evil.example"), 421),
    ):
        assert ask(edge.admin, path, fields=fields).status == status, (path, fields)
    edge.write(legacy_headers=True)
    for fields, status in (
        ({}, 401),
        (holding("gone"), 401),
        (holding("ops", Host="evil.example"), 421),
        (holding("ops", Origin="https://evil.example"), 403),
    ):
        refused = ask(edge.admin, "/reload", method="POST", fields=fields)
        assert (refused.status, refused["content-type"]) == (status, "application/problem+json")
        assert f"{HOST} {status} POST /reload" in edge.output
    assert "configuration reloaded" in edge.output
    edge.write(admin={**guarded, "tokens": [{"name": "ops", "sha256": digest["ops"]}]})
    assert ask(edge.admin, "/reload", method="POST", fields=holding("before")).json()["result"] == "ok"
    assert ask(edge.admin, "/status", fields=holding("before")).status == 401, "the token has been replaced"
    changes = [json.loads(line) for line in edge.output.splitlines() if '"admin request"' in line]
    assert [(change["path"], change["by"], change["origin"]) for change in changes] == [
        ("/reload", "local", HOST),
        ("/reload", "ops", HOST),
    ]
    socket = Path(edge.settings["state"]) / "admin.sock"
    assert socket.stat().st_mode & 0o777 == 0o600
    status = CliRunner().invoke(cli.app, ["status", "-c", str(edge.file)])
    assert status.exit_code == 0, status.stderr
    refused_without = CliRunner().invoke(cli.app, ["status", "--admin", address], env={TOKEN: None})
    assert (refused_without.exit_code, "token" in refused_without.stderr) == (1, True)
    by_token = CliRunner().invoke(cli.app, ["status", "--admin", address], env={TOKEN: secrets["ops"]})
    assert by_token.exit_code == 0, by_token.stderr
    edge.end()
    assert not socket.exists()


def test_the_socket_is_that_of_the_supervisor_that_serves(start_edge: StartEdge) -> None:
    edge = start_edge()
    socket = Path(edge.settings["state"]) / "admin.sock"
    first = edge.supervisor
    inode = socket.stat().st_ino
    edge.start()
    until(lambda: socket.stat().st_ino != inode, "the later supervisor is asked")
    edge.supervisor.send_signal(SIGKILL)
    until(lambda: edge.supervisor.running is False, "the supervisor is dead")

    def answers() -> bool:
        return CliRunner().invoke(cli.app, ["probe", "-c", str(edge.file)]).exit_code == 0

    assert first.running
    until(answers, "the earlier one has taken the socket back")
