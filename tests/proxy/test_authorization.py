"""What other proxies ask about requests of theirs, and what nobody else learns."""

import pytest

from tests.support.transcript import EXPIRED, KEY, UNLIMITED, Edge, get, head
from tests.support.wire import Message


@pytest.fixture
def edge(edge: Edge) -> Edge:
    edge.config |= {
        "listen": [{"address": "127.0.0.1:0", "authorize": True}],
        "trusted_proxies": ["127.0.0.1"],
        "cors": {"origins": ["https://app.example.com"]},
    }
    return edge


def question(uri: str = "/v1/x", *fields: str, key: str = UNLIMITED, method: str = "GET") -> bytes:
    said = [f"X-Original-Method: {method}", f"X-Original-URI: {uri}", *([f"X-API-Key: {key}"] if key else [])]
    return head("POST /v1/authorize HTTP/1.1", "Host: edge.test", "Content-Length: 0", *said, *fields)


async def answered(edge: Edge, data: bytes, to: str = "GET") -> Message:
    return await edge.refuses(data, to)  # nothing is ever forwarded


async def test_what_may_pass_is_told_whose_it_is_and_counts(edge: Edge) -> None:
    answer = await answered(edge, question(key=KEY))
    assert (answer.status, answer.body) == (200, b"")
    assert (answer["X-Customer-Id"], answer["X-Customer-Tier"], answer["X-Edge-Region"]) == ("acme", "basic", "test")
    assert "r=59;" in answer["RateLimit"]
    assert answer["X-Request-Id"]
    assert edge.usage() == {("acme", "requests", "v1"): 1}
    assert edge.used() == {"basic": 1}
    assert edge.count("edge_requests_total", "v1", "basic", "200") == 1


async def test_envoy_asks_with_the_method_and_the_path_of_its_client(edge: Edge) -> None:
    for method in ("GET", "HEAD", "DELETE"):
        fields = (f"Authorization: Bearer {UNLIMITED}", "X-Original-URI: /nowhere")
        data = head(f"{method} /v1/authorize/v1/x?y=z HTTP/1.1", "Host: edge.test", *fields)
        answer = await answered(edge, data, method)
        assert (answer.status, answer["X-Customer-Id"]) == (200, "free")
    assert (await answered(edge, get("/v1/authorize/get/x", f"X-API-Key: {KEY}"))).status == 200
    assert (await answered(edge, head("PUT /v1/authorize/get/x HTTP/1.1", "Host: h"), "PUT")).status == 405


async def test_one_connection_carries_many_questions(edge: Edge) -> None:
    edge.config["tiers"]["basic"] = {"limits": [{"rate": "2/min"}], "concurrency": 1}
    client = await edge.client()
    await client.sends(*[question(key=KEY)] * 3, question(key=""))
    answers = [await client.gets_answer() for _ in range(4)]
    assert [answer.status for answer in answers] == [200, 200, 429, 401]
    assert int(answers[2]["Retry-After"]) >= 1
    assert answers[3]["WWW-Authenticate"].startswith("Bearer")
    assert edge.usage() == {("acme", "requests", "v1"): 2}


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (question(key="of-nobody"), 401),
        (question(key=EXPIRED), 401),
        (question("/read/x"), 403),
        (question("/nowhere"), 404),
        (question("/get/x", method="POST"), 405),
        (question("/v1/../../x"), 400),
        (question("http://edge.test/v1/x"), 400),
        (question("v1/x"), 400),
        (question("/v1/x y"), 400),
        (question("/v1/x", "X-Original-URI: /public/x"), 400),
        (question(method="G T"), 400),
        (get("/v1/authorize", f"X-API-Key: {KEY}"), 400),
        (get("/v1/x", f"X-API-Key: {KEY}"), 404),
        (get("/v1/authorized", f"X-API-Key: {KEY}"), 404),
        (question(method="OPTIONS", key="") [:-2] + b"Origin: https://app.example.com\r\n"
         b"Access-Control-Request-Method: GET\r\n\r\n", 401),
    ],
)  # fmt: skip
async def test_what_may_not_pass_is_told_why(edge: Edge, data: bytes, status: int) -> None:
    answer = await answered(edge, data)
    assert answer.status == status
    assert "X-Customer-Id" not in answer
    assert edge.usage() == {}


async def test_an_answer_has_a_body_as_the_question_wants_it(edge: Edge) -> None:
    client = await edge.client()
    await client.sends(question(method="HEAD", key=""), question(method="HEAD"))
    refused = await client.gets_answer()
    assert (refused.status, len(refused.body)) == (401, int(refused["Content-Length"]))
    assert (await client.gets_answer()).status == 200


async def test_the_path_that_is_decided_on_is_in_its_one_form(edge: Edge) -> None:
    for uri in ("/public/../read/x", "/public/%2e%2e/read/x"):
        assert (await answered(edge, question(uri, key=""))).status == 401
    assert (await answered(edge, question("/public/x", key=""))).status == 200


async def test_a_stranger_learns_nothing(edge: Edge) -> None:
    for data in (question(key=KEY), question(key=""), question(key=KEY, uri="/nowhere")):
        client = await edge.client("127.0.0.2")
        answer = await client.asks(data.replace(b"Content-Length", b"X-Forwarded-For: 127.0.0.1\r\nContent-Length"))
        assert answer.status == 403
        await client.gets_eof()
        assert b"trusted proxies" in answer.body
    assert edge.used() == {"basic": 0}


async def test_limits_and_lists_are_about_the_client_of_the_proxy(edge: Edge) -> None:
    edge.config |= {"per_ip": {"rate": "1/min"}, "networks": {"deny": ["192.0.2.9"]}}
    assert (await answered(edge, question("/v1/x", "X-Forwarded-For: 192.0.2.1"))).status == 200
    assert (await answered(edge, question("/v1/x", "X-Forwarded-For: 192.0.2.1"))).status == 429
    assert (await answered(edge, question("/v1/x", "X-Forwarded-For: 192.0.2.2"))).status == 200
    assert (await answered(edge, question("/v1/x", "X-Forwarded-For: 192.0.2.9"))).status == 403
