"""What operators and dashboards see: exact figures, whichever worker counted them."""

from contextlib import ExitStack

import pytest

from tests.support.ask import Wire, ask
from tests.support.customers import UNLIMITED, key_of, people
from tests.support.edge import Edge, StartEdge, total
from tests.support.waiting import until

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
    assert total(samples, "edge_upstream_seconds_count", upstream="api") == 62 + passed
    assert edge.usage() == {UNLIMITED: 51, "acme": passed, "-": 6}
    rows = ask(edge.admin, "/usage").json()["rows"]
    assert [UNLIMITED, "good", "all", 44] in rows
    assert ["-", "requests", "open", 6] in rows


def spread(edge: Edge, open_until: ExitStack) -> list[Wire]:
    """Connections of which each worker has some."""
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
    samples = edge.metrics()
    for name, labels in (
        ("edge_request_seconds", {"route": "all"}),
        ("edge_upstream_seconds", {"upstream": "api"}),
        ("edge_overhead_seconds", {}),
    ):
        assert total(samples, f"{name}_count", **labels) == 10, name
        assert total(samples, f"{name}_bucket", le="+Inf", **labels) == 10
    assert total(samples, "edge_upstream_seconds_bucket", upstream="api", le="0.01") == 0
    assert 0.2 <= total(samples, "edge_upstream_seconds_sum", upstream="api") < 5
    assert total(samples, "edge_overhead_seconds_sum") < total(samples, "edge_upstream_seconds_sum")


def test_labels_come_from_the_configuration_and_never_from_requests(edge: Edge) -> None:
    for word in ("mallory", "0123"):
        edge.ask(f"/all/{word}", method=word.upper() if word.isalpha() else "GET", key=word)
        edge.ask(f"/{word}", fields={"Host": f"{word}.test", "X-Customer-Id": word})
    text = ask(edge.admin, "/metrics").body.decode()
    assert "mallory" not in text.lower()
    assert "0123" not in text


def test_usage_is_the_same_however_often_it_is_read(edge: Edge) -> None:
    assert edge.usage() == {}
    edge.ask("/all/", key=key_of(UNLIMITED))
    assert edge.usage() == edge.usage() == {UNLIMITED: 1}


def test_limits_tell_how_a_customer_stands(edge: Edge) -> None:
    for _ in range(4):
        edge.ask("/all/", key=key_of("acme"))
    policy = edge.limit("acme")
    assert (policy["scope"], policy["limit"], policy["window_s"], policy["mode"]) == ("customer", 30, 60, "enforce")
    assert (policy["used"], policy["remaining"]) == (4, 26)
    assert 0 < policy["reset_s"] <= 65
    assert edge.limits(UNLIMITED) == []
    assert ask(edge.admin, "/limits/nobody").status == 404


def test_status_tells_of_the_edge_and_its_workers(edge: Edge) -> None:
    status = edge.status()
    assert status["region"] == "eu-test"
    assert status["version"]
    assert len(status["config"]["sha256"]) == 64
    assert status["config"]["error"] is None
    assert {worker["pid"] for worker in status["workers"]} < edge.supervisor.family()
    assert len(status["workers"]) == 2
    assert "hub" in status
    assert status["usage"]["unshipped"] == 0


def test_probes_answer(edge: Edge) -> None:
    assert ask(edge.admin, "/healthz").status == 200
    assert ask(edge.admin, "/readyz").status == 200
    assert ask(edge.admin, "/nothing").status == 404
    assert ask(edge.admin, "/usage", method="DELETE").status == 405


def test_readyz_is_503_while_the_edge_drains(edge: Edge) -> None:
    with Wire(edge.port) as wire:
        wire.send(b"GET /open/?wait=1500 HTTP/1.1\r\nHost: a\r\n\r\n")
        until(lambda: total(edge.metrics(), "edge_connections", side="upstream") == 1, "the request is under way")
        edge.supervisor.terminate()
        until(lambda: ask(edge.admin, "/readyz").status == 503, "it says that it drains")
        assert ask(edge.admin, "/healthz").status == 200
        answer = wire.hear()
        assert answer.status == 200
        assert answer["connection"] == "close"
    assert edge.supervisor.wait(10) == 0
