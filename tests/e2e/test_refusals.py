"""What the edge says no to, and how: problem+json that tells which request it was."""

from typing import Any

import pytest

from tests.support.ask import Answer, assert_problem
from tests.support.customers import UNLIMITED, key_line, key_of, people
from tests.support.edge import Edge
from tests.support.upstream import Upstream


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory, upstream: Upstream) -> Any:
    """An edge with routes to be missed, methods to be wrong and scopes to lack."""
    described = people(reader="free", writer="free", former="free")
    described["keys"] = [
        key_line(UNLIMITED),
        key_line("reader", scopes=["read"]),
        key_line("writer", scopes=["read", "write"]),
        key_line("former", expires="2020-01-01"),
    ]
    edge = Edge(
        tmp_path_factory.mktemp("gate") / "edge",
        upstream.port,
        routes=[
            {"name": "v1", "host": "api.test", "path": "/v1/*", "methods": ["GET", "POST"], "upstream": "api"},
            {"name": "write", "host": "api.test", "path": "/write", "upstream": "api", "scopes": ["read", "write"]},
            {"name": "wild", "host": "*.wild.test", "path": "/*", "upstream": "api"},
        ],
        limits={"head": "4KiB", "fields": 20, "body": "1MiB"},
        **described,
    )
    try:
        yield edge.start()
    finally:
        edge.close()


def ask(edge: Edge, path: str, customer: str | None = UNLIMITED, host: str = "api.test", **how: Any) -> Answer:
    return edge.ask(path, key=customer and key_of(customer), fields={"Host": host}, **how)


def test_a_route_is_found_by_host_path_and_method(gate: Edge) -> None:
    assert ask(gate, "/v1/a").status == 200
    assert ask(gate, "/v1/a", host="API.Test.:8080").status == 200
    assert ask(gate, "/any", host="a.b.wild.test").status == 200
    assert_problem(ask(gate, "/v2/a"), 404)
    assert_problem(ask(gate, "/v1"), 404)
    assert_problem(ask(gate, "/v1/a", host="other.test"), 404)
    assert_problem(ask(gate, "/any", host="wild.test"), 404)
    refused = ask(gate, "/v1/a", method="DELETE")
    assert_problem(refused, 405)
    assert {method.strip() for method in refused["allow"].split(",")} == {"GET", "POST"}


def test_nobody_is_asked_for_a_key_where_there_is_no_route(gate: Edge) -> None:
    assert_problem(ask(gate, "/nowhere", customer=None), 404)
    assert_problem(ask(gate, "/v1/a", customer=None, method="DELETE"), 405)


@pytest.mark.parametrize("customer", [None, "nobody", "former"])
def test_no_key_an_unknown_key_and_a_former_key_are_401(gate: Edge, customer: str | None) -> None:
    refused = ask(gate, "/v1/a", customer=customer)
    assert_problem(refused, 401)
    assert refused["www-authenticate"].startswith("Bearer")


def test_a_key_without_the_scopes_is_403(gate: Edge) -> None:
    assert_problem(ask(gate, "/write", customer="reader"), 403)
    assert ask(gate, "/write", customer="writer").status == 200
    assert ask(gate, "/v1/a", customer="reader").status == 200
