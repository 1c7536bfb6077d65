"""Access by client address and by properties of a request."""

import random
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from edgeproxy.base.addresses import parse_ip
from edgeproxy.config.networks import Networks as Settings
from edgeproxy.edge.proxy.routing.request_rules import paths_overlap
from edgeproxy.edge.proxy.transport.network_filter import NetworkFilter
from tests.support.transcript import KEY, UNLIMITED, Edge, get, head, ok, post


def networks(**lists: list[str]) -> NetworkFilter:
    return NetworkFilter(Settings.model_validate(lists))


def test_an_address_is_looked_up_as_if_each_network_were_asked() -> None:
    chance = random.Random(7)

    def some(count: int) -> list[str]:
        made = [
            f"10.{chance.randrange(4)}.{chance.randrange(8)}.0/{chance.choice((12, 16, 22, 24))}" for _ in range(count)
        ]
        made += [f"2001:db8:{chance.randrange(8):x}::/{chance.choice((32, 46, 48))}" for _ in range(count)]
        return [str(ip_network(each, strict=False)) for each in made]

    for _ in range(5):
        lists = {"allow": some(6), "deny": some(3)}
        created = networks(**lists)
        tried = [f"10.{chance.randrange(5)}.{chance.randrange(9)}.{chance.randrange(256)}" for _ in range(100)]
        tried += [f"2001:db8:{chance.randrange(9):x}::{chance.randrange(9):x}" for _ in range(100)]
        edges = [ip_network(each) for each in (*lists["allow"], *lists["deny"])]
        tried += [str(edge[n]) for edge in edges for n in (0, -1)] + [str(edge[-1] + 1) for edge in edges]
        for text in tried:
            address = ip_address(text)
            within = {name: any(address in ip_network(each) for each in some) for name, some in lists.items()}
            assert created.admits(address) is (within["allow"] and not within["deny"]), text


def test_large_lists_become_one_row_of_numbers() -> None:
    some = [f"{n >> 8 & 255}.{n & 255}.{n >> 16}.0/24" for n in range(0, 12_000, 2)]
    created = networks(deny=some)
    assert not created.admits(ip_address("0.2.0.77"))
    assert created.admits(ip_address("0.3.0.77"))
    assert len(created._changes[4]) == 2 * len(some) - 1  # the first of them begins at the lowest address


@pytest.mark.parametrize("text", ["::ffff:192.0.2.1", "192.0.2.1"])
def test_ipv4_in_the_clothes_of_ipv6_is_not_let_in(text: str) -> None:
    assert not networks(deny=["192.0.2.0/24"]).admits(parse_ip(text))
    assert not networks(deny=["192.0.2.0/24"]).admits(parse_ip("somewhere"))
    assert not networks(allow=[]).admits(parse_ip(text))


async def test_denied_address_is_refused_at_connect_with_403(edge: Edge) -> None:
    edge.config["networks"] = {"deny": ["127.0.0.2", "127.9.0.0/16"]}
    for address in ("127.0.0.2", "127.9.9.9"):
        client = await edge.client(address)
        answer = await client.gets_answer()
        assert answer.status == 403
        assert "Retry-After" not in answer
        await client.gets_eof()
    assert edge.count("edge_connections_refused_total", "network") == 2
    assert (await edge.refuses(get("/nowhere"))).status == 404


async def test_trusted_proxy_may_forward_only_allowed_addresses(edge: Edge) -> None:
    edge.config |= {"trusted_proxies": ["127.0.0.1"], "networks": {"allow": ["192.0.2.0/24"]}}
    _, answer = await edge.passes(get("/public/", "X-Forwarded-For: 203.0.113.1, 192.0.2.1"), ok())
    assert answer.status == 200
    for said in ("203.0.113.1", "192.0.2.1, 203.0.113.1", "unknown"):
        assert (await edge.refuses(get("/public/", f"X-Forwarded-For: {said}"))).status == 403
    client = await edge.client("127.0.0.2")  # an untrusted client may put any value there
    assert (await client.asks(get("/public/", "X-Forwarded-For: 192.0.2.1"))).status == 403
    await client.gets_eof()


async def test_newly_denied_address_finishes_its_request_and_is_closed(edge: Edge) -> None:
    idle, busy = await edge.client(), await edge.client()
    await idle.asks(get("/nowhere"))
    upstream = await edge.brings(busy, get())
    edge.config["networks"] = {"deny": ["127.0.0.0/8"]}
    await edge.reloads()
    await idle.gets_eof()
    assert (await upstream.tells(busy, ok())).status == 200
    await busy.gets_eof()
    upstream.closes()


async def test_a_route_lets_some_in_before_it_asks_for_a_key(edge: Edge) -> None:
    edge.config["routes"][0]["networks"] = {"allow": ["127.0.0.2"]}
    assert (await edge.refuses(get("/v1/x"))).status == 403
    assert (await edge.refuses(get("/v1/x", f"X-API-Key: {KEY}"))).status == 403
    client = await edge.client("127.0.0.2")
    assert (await client.asks(get("/v1/x"))).status == 401


async def test_a_key_is_of_no_use_from_elsewhere(edge: Edge) -> None:
    edge.config["customers"]["acme"]["networks"] = {"allow": ["127.0.0.2"]}
    for _ in range(3):
        assert (await edge.refuses(get("/v1/x", f"X-API-Key: {KEY}"))).status == 403
    await edge.passes(get("/v1/x", f"X-API-Key: {UNLIMITED}"), ok())
    edge.upstream.answers(lambda request: ok())
    client = await edge.client("127.0.0.2")
    for left in (59, 58):  # one limit of the customer's, wherever it comes from
        assert f"r={left};" in (await client.asks(get("/v1/x", f"X-API-Key: {KEY}")))["RateLimit"]
    assert edge.used() == {"basic": 2}


async def test_an_address_connects_so_often_and_no_more(edge: Edge) -> None:
    edge.config["limits"] = {"connection_rate": "3/min"}
    for status in (404, 404, 404, 429, 429):
        client = await edge.client()
        assert (await client.asks(get("/nowhere"))).status == status
        client.closes()
    assert edge.count("edge_connections_refused_total", "rate") == 2
    other = await edge.client("127.0.0.2")
    assert (await other.asks(get("/nowhere"))).status == 404
    edge.passes_time(130)
    client = await edge.client()
    assert (await client.asks(get("/nowhere"))).status == 404


def ruled(edge: Edge, **rule: Any) -> None:
    edge.config["rules"] = [{"name": "r", **rule}]


async def test_a_rule_sees_the_cookies_beside_a_key(edge: Edge) -> None:
    edge.config["auth"] = {"cookie": "session"}
    ruled(edge, field="Cookie", contains="theme=")
    for cookies in ("theme=x", f"session={KEY}; theme=x"):
        assert (await edge.refuses(get("/v1/x", f"Cookie: {cookies}"))).status == 403
    request, _ = await edge.passes(get("/v1/x", f"Cookie: session={KEY}; a=b"), ok())
    assert request["Cookie"] == "a=b"


async def test_deny_rule_refuses_requests_that_meet_all_its_conditions(edge: Edge) -> None:
    ruled(edge, path="/public/*", methods=["POST"], field="user-agent", contains="SqlMap", larger="5B")
    bad = post(b"123456", "/public/x", "User-Agent: a sqlmap/1")
    answer = await edge.refuses(bad)
    assert answer.status == 403
    assert edge.count("edge_rules_total", "r", "deny") == 1
    chunked = ("User-Agent: sqlmap", "Transfer-Encoding: chunked")
    assert (await edge.refuses(head("POST /public/y HTTP/1.1", "Host: h", *chunked))).status == 403
    for other in (
        post(b"12345", "/public/x", "User-Agent: sqlmap"),
        post(b"123456", "/public/x", "User-Agent: curl", "X-Other: sqlmap"),
        post(b"123456", "/get/../public/x"),
        post(b"123456", "/v1/x", "User-Agent: sqlmap", f"X-API-Key: {UNLIMITED}"),
        get("/public/x", "User-Agent: sqlmap"),
    ):
        assert (await edge.passes(other, ok()))[1].status == 200
    assert (await edge.refuses(post(b"123456", "/get/../public/%78", "User-Agent: sqlmap"))).status == 403


@pytest.mark.parametrize("meant", ["/public/admin/*", "/public/admin/x"])
@pytest.mark.parametrize("sent", ["/public/admin%2fx", "/public//admin/x", "/public/admin//x", "/public/%2Fadmin/%78"])
async def test_no_other_spelling_of_a_path_leads_past_a_rule(edge: Edge, meant: str, sent: str) -> None:
    ruled(edge, path=meant)
    assert (await edge.refuses(get(sent))).status == 403


@pytest.mark.parametrize("sent", ["/public/admin", "/public//admin", "/public/%61dmin?x"])
async def test_a_rule_about_a_prefix_is_about_its_name(edge: Edge, sent: str) -> None:
    """So it is to the router, and services serve both alike."""
    ruled(edge, path="/public/admin/*")
    assert (await edge.refuses(get(sent))).status == 403
    assert (await edge.passes(get("/public/adminx"), ok()))[1].status == 200


async def test_a_rule_lets_so_many_of_an_address_pass(edge: Edge) -> None:
    ruled(edge, path="/public/login", methods=["POST"], action="limit", rate="2/min")
    edge.upstream.answers(lambda request: ok())
    client = await edge.client()
    for status in (200, 200, 429):
        answer = await client.asks(post(b"", "/public/login"))
        assert answer.status == status
    assert 1 <= int(answer["Retry-After"]) <= 70
    assert (await client.asks(get("/public/login"))).status == 200
    other = await edge.client("127.0.0.2")
    assert (await other.asks(post(b"", "/public/login"))).status == 200
    assert edge.count("edge_rules_total", "r", "pass") == 3
    assert edge.count("edge_rules_total", "r", "limit") == 1


async def test_a_rule_that_logs_lets_pass(edge: Edge) -> None:
    ruled(edge, field="X-Odd", action="log")
    assert (await edge.passes(get("/public/", "X-Odd: yes"), ok()))[1].status == 200
    assert edge.count("edge_rules_total", "r", "log") == 1


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("/a/*", "/a/b/*", True),
        ("/a/b", "/a/*", True),
        ("/a", "/a", True),
        ("/a/*", "/a", True),
        ("/a/*", "/ab", False),
        ("/a/*", "/b/*", False),
        ("/a", "/b", False),
    ],
)
def test_network_rule_applies_to_overlapping_paths_only(one: str, other: str, expected: bool) -> None:
    assert paths_overlap(one, other) is paths_overlap(other, one) is expected
