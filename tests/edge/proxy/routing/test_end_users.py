"""Limits by end user: separate users, users that share a limit, and floods of invented names."""

import time
from typing import Any

import pytest

from tests.edge.proxy.asking import asks, is_limited, left, limited
from tests.support.transcript import KEY, Edge

USER = "X-End-User"


@pytest.fixture
def named(answering: Edge) -> Edge:
    """An edge with two requests a minute for each end user, and a hundred for the customer."""
    limited(answering, {"name": "user", "rate": "2/min", "per": {"header": USER}}, {"name": "all", "rate": "100/min"})
    return answering


async def test_each_end_user_has_the_limit_and_all_of_them_the_customers(named: Edge) -> None:
    client = await named.client()
    for user in ("ada", "bob"):
        assert [left(await asks(client, "/v1/x", f"{USER}: {user}"))[:2] for _ in range(2)] == [
            ("user", 1),
            ("user", 0),
        ]
        is_limited(await asks(client, "/v1/x", f"{USER}: {user}"), "user")
    assert (await asks(client, "/v1/x", f"{USER.lower()}:  ada ")).status == 429, "the same name, written otherwise"
    assert (await asks(client, "/v1/x", f"{USER}: carl")).status == 200
    assert named.used()["all"] == 5, "a refusal of an end user charges nothing"


async def test_no_name_takes_long_to_read(named: Edge) -> None:
    """A name with 16,000 spaces once blocked the worker for five seconds."""
    client = await named.client()
    began = time.process_time()
    assert (await asks(client, "/v1/x", f"{USER}: a{' ' * 16_000}b")).status == 200
    assert time.process_time() - began < 1


async def test_requests_without_an_end_user_share_one_limit(named: Edge) -> None:
    client = await named.client()
    statuses = [(await asks(client, "/v1/x", *field)).status for field in ((), (f"{USER}:",), (), (f"{USER}: ",))]
    assert statuses == [200, 200, 429, 429]


async def test_request_with_two_end_users_answers_400_uncharged(named: Edge) -> None:
    client = await named.client()
    assert (await asks(client, "/v1/x", f"{USER}: ada", f"{USER}: bob")).status == 400
    assert named.upstream.requests == []
    assert left(await asks(client, "/v1/x", f"{USER}: ada"))[:2] == ("user", 1)


async def test_a_name_that_does_not_reach_the_upstream_is_none(named: Edge) -> None:
    """RFC 9110 section 7.6.1: a field that Connection names is for the edge alone."""
    client = await named.client()
    statuses = [(await asks(client, "/v1/x", f"Connection: {USER}", f"{USER}: {n}")).status for n in range(3)]
    assert statuses == [200, 200, 429]


@pytest.mark.parametrize(
    ("queries", "statuses"),
    [
        (("user=ada", "x=1&user=%61da", "%75ser=ada", "user=bob"), [200, 200, 429, 200]),
        (("user=a+b", "user=a%20b", "user=a%2Bb"), [200, 200, 429]),
        (("", "user=", "user"), [200, 200, 429]),
        (("user=ada&user=bob", "user=ada&%75ser=bob"), [400, 400]),
    ],
    ids=["percent", "space", "nobody", "two"],
)
async def test_a_name_in_the_query_counts_however_it_is_written(
    answering: Edge, queries: tuple[str, ...], statuses: list[int]
) -> None:
    limited(answering, {"rate": "2/min", "per": {"query": "user"}})
    client = await answering.client()
    assert [(await asks(client, f"/v1/x?{query}")).status for query in queries] == statuses


async def test_each_address_of_a_customer_has_the_limit(answering: Edge) -> None:
    limited(answering, {"rate": "1/min", "per": "ip"})
    statuses = []
    for address in ("127.0.0.2", "127.0.0.3", "127.0.0.2"):
        client = await answering.client(address)
        statuses.append((await asks(client)).status)
    assert statuses == [200, 200, 429]


async def test_an_end_user_counts_within_the_customer_and_the_route(answering: Edge) -> None:
    limited(answering)
    route: dict[str, Any] = {"upstream": "api", "limits": [{"rate": "1/min", "per": {"header": USER}}]}
    answering.config["routes"] += [{"name": name, "path": f"/{name}/*", **route} for name in ("a", "b")]
    client = await answering.client()
    asking = [("/a/x", KEY), ("/b/x", KEY), ("/a/x", KEY)]
    assert [(await asks(client, path, f"{USER}: ada", key=key)).status for path, key in asking] == [200, 200, 429]


async def test_flood_of_end_user_names_takes_no_customer_row(answering: Edge) -> None:
    answering.config["tables"] = {"customers": 10, "addresses": 10, "end_users": 8}
    limited(answering, {"name": "user", "rate": "2/min", "per": {"header": USER}}, {"name": "all", "rate": "500/min"})
    client = await answering.client()
    first = [(await asks(client, "/v1/x", f"{USER}: ada")).status for _ in range(2)]
    for n in range(100):
        assert (await asks(client, "/v1/x", f"{USER}: {n}")).status == 200
    assert answering.used() == {"user": 0, "all": 102}, "the customer has its row"
    assert answering.count("edge_table_full_total", "end_users") > 0
    assert answering.count("edge_table_full_total", "customers") == 0
    assert (*first, (await asks(client, "/v1/x", f"{USER}: ada")).status) == (200, 200, 429), (
        "an end user with a row keeps it"
    )
    for _ in range(2):
        last = await asks(client, "/v1/x", f"{USER}: 99")
    is_limited(last, "user")


async def test_names_are_in_no_table_and_in_no_metric(named: Edge) -> None:
    client = await named.client()
    await asks(client, "/v1/x", f"{USER}: a-telling-name")
    await asks(client, "/v1/x", f"{USER}: {'long' * 100}")
    (state,) = (path for path in named._folder.rglob("state") if path.is_dir())
    files = [*state.glob("*.tbl")]
    assert files
    for file in files:
        content = file.read_bytes()
        assert b"a-telling-name" not in content
        assert b"longlong" not in content
