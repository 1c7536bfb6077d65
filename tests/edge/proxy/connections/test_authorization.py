"""Authorization queries of other proxies about their requests, and the secrecy of the answers."""

import re
from pathlib import Path

import pytest

from tests.support.transcript import EXPIRED, KEY, UNLIMITED, Edge, get, head
from tests.support.wire import Message


@pytest.fixture
def edge(edge: Edge) -> Edge:
    edge.config |= {
        "listen": [{"address": "127.0.0.1:0", "authorize": "original"}],
        "trusted_proxies": ["127.0.0.1"],
        "cors": {"origins": ["https://app.example.com"]},
        "auth": {"query": "k"},
    }
    return edge


def question(uri: str = "/v1/x", *fields: str, key: str = UNLIMITED, method: str = "GET") -> bytes:
    said = [f"X-Original-Method: {method}", f"X-Original-URI: {uri}", *([f"X-API-Key: {key}"] if key else [])]
    return head("POST /v1/authorize HTTP/1.1", "Host: edge.test", "Content-Length: 0", *said, *fields)


async def answered(edge: Edge, data: bytes, to: str = "GET") -> Message:
    return await edge.refuses(data, to)  # nothing is ever forwarded


async def test_admitted_authorization_names_the_customer_and_counts(edge: Edge) -> None:
    answer = await answered(edge, question(key=KEY))
    assert (answer.status, answer.body) == (200, b"")
    assert (answer["X-Customer-Id"], answer["X-Customer-Tier"], answer["X-Edge-Region"]) == ("acme", "basic", "test")
    assert "r=59;" in answer["RateLimit"]
    assert answer["X-Request-Id"]
    assert edge.usage() == {("acme", "requests", "v1"): 1}
    assert edge.used() == {"basic": 1}
    assert edge.count("edge_requests_total", "v1", "basic", "200") == 1


def stating(edge: Edge, authorize: str) -> None:
    edge.config["listen"] = [{"address": "127.0.0.1:0", "authorize": authorize}]


async def test_every_stamp_and_every_field_of_keys_is_stated(edge: Edge) -> None:
    edge.config |= {"stamp_secret": "s" * 32, "stamp_signature": "v2", "auth": {"fields": ["X-Token"], "cookie": "k"}}
    stated = "Authorization: Basic x", "Cookie: a=b", "Cookie: k=wrong; c=d", "X-API-Key: own"
    answer = await answered(edge, question("/public/x", *stated, f"X-Token: {UNLIMITED}", key=""))
    assert [answer[name] for name in ("X-Customer-Id", "X-Customer-Tier", "X-Edge-Region")] == ["", "", "test"]
    assert re.fullmatch(r"t=\d+,v1=\w{64},v2=\w{64},body=-", answer["X-Edge-Signature"])
    own = ("X-Token", "Authorization", "Cookie", "X-API-Key", "Sec-WebSocket-Protocol")
    assert [answer[name] for name in own] == ["", "Basic x", "c=d; a=b", "own", ""]
    assert (await answered(edge, question("/public/x", "X_Token: t", key=""))).status == 400
    assert (await answered(edge, question("/public/x", "X_Own: t", key=""))).status == 200


async def test_users_with_passwords_are_checked_and_their_passwords_stay(edge: Edge, tmp_path: Path) -> None:
    (tmp_path / "users").write_text("ada:$2y$04$BhcHImMsKbDAAOGc3deSe.HQ3dIENz/jf9NZ374dsBkzWKDWFdx92\n")  # `secret`
    auth = {"basic": str(tmp_path / "users")}
    edge.config["routes"].append({"name": "wiki", "path": "/wiki/*", "upstream": "api", "auth": auth})
    answers = [
        await answered(edge, question("/wiki/a", *fields, key=key))
        for fields, key in (
            (("Authorization: Basic YWRhOnNlY3JldA==",), ""),
            (("Authorization: Basic YWRhOndyb25n",), ""),
            ((), KEY),
        )
    ]
    assert [answer.status for answer in answers] == [200, 401, 401]
    assert answers[0]["Authorization"] == ""
    assert answers[2]["WWW-Authenticate"].startswith("Basic ")


async def test_a_service_that_is_to_see_keys_sees_them(edge: Edge) -> None:
    for upstream in edge.config["upstreams"].values():
        upstream["forward_key"] = True
    assert (await answered(edge, question(key=KEY)))["X-API-Key"] == KEY


async def test_clients_that_need_a_field_may_send_it(edge: Edge) -> None:
    edge.config["strip_except"] = ["X-HTTP-Method-Override"]
    assert (await answered(edge, question("/v1/x", "X-HTTP-Method-Override: PUT", key=KEY))).status == 200


async def test_traefik_and_caddy_state_the_host_too(edge: Edge) -> None:
    stating(edge, "forwarded")
    edge.config["routes"].append(
        {"name": "own", "host": "own.test", "path": "/v1/*", "upstream": "api", "auth": "none"}
    )
    stated = "X-Forwarded-Method: GET", "X-Forwarded-Uri: /v1/x"
    for fields, status in (
        (("X-Forwarded-Host: own.test:81",), 200),
        (("X-Forwarded-Host: edge.test",), 401),
        ((), 400),
        (("X-Forwarded-Host: own.test", "X-Forwarded-Host: own.test"), 400),
        (("X-Forwarded-Host: own.test", "X-Forwarded-Uri: /public/x"), 400),
        (("X-Forwarded-Host: own.test", "X-Original-Method: GET"), 400),
        (("X-Forwarded-Host: own.test", "x-original-uri: /v1/x"), 400),
    ):
        data = head("GET /v1/authorize HTTP/1.1", "Host: edge.test", *stated, *fields)
        assert (await answered(edge, data)).status == status, fields


async def test_envoy_asks_with_the_method_and_the_path_of_its_client(edge: Edge) -> None:
    stating(edge, "path")
    for method in ("GET", "HEAD", "DELETE"):
        fields = (f"Authorization: Bearer {UNLIMITED}",)
        data = head(f"{method} /v1/authorize/v1/x?y=z HTTP/1.1", "Host: edge.test", *fields)
        answer = await answered(edge, data, method)
        assert (answer.status, answer["X-Customer-Id"]) == (200, "free")
    assert (await answered(edge, get("/v1/authorize/get/x", f"X-API-Key: {KEY}"))).status == 200
    assert (await answered(edge, head("PUT /v1/authorize/get/x HTTP/1.1", "Host: h"), "PUT")).status == 405
    for target, status in (
        ("/v1/authorize/v1/../public/x", 400),
        ("/v1/authorize/v1/%2e%2e/public/x", 400),
        ("/v1/%61uthorize/public/x", 404),
        ("/public/../v1/authorize/public/x", 404),
        ("http://edge.test/v1/authorize/public/x", 404),
        ("/v1/authorize", 404),
        ("/v1/authorize/public/x", 200),
    ):
        assert (await answered(edge, get(target))).status == status, target
    for field in ("X-Original-URI: /public/x", "X-Forwarded-Uri: /public/x"):
        assert (await answered(edge, get("/v1/authorize/public/x", field))).status == 400


async def test_connection_carries_many_authorization_requests(edge: Edge) -> None:
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
        (question("/v1/x", "X-Forwarded-Uri: /v1/x"), 400),
        (question("/v1/x", "X-Forwarded-Method: GET"), 400),
        (question("/v1/x", "X_Customer_Id: acme"), 400),
        (question("/v1/x", "x.edge-signature: t"), 400),
        (question("/v1/x", "X_API_Key: k"), 400),
        (question("/v1/x", "X-Request_Id: r"), 400),
        (question("/v1/x", "Sec_WebSocket-Protocol: api-key.k"), 400),
        (question("/v1/x", "X-Rewrite-URL: /public/x"), 400),
        (question("/public/x", "X_HTTP-Method_Override: PUT", key=""), 400),
        (question("/v1/x?k=" + UNLIMITED, key=""), 400),
        (question("/public/x?a=b&k=" + UNLIMITED, key=""), 400),
        (get("/v1/authorize/v1/x", f"X-API-Key: {KEY}"), 404),
        (question(method="G T"), 400),
        (get("/v1/authorize", f"X-API-Key: {KEY}"), 400),
        (get("/v1/x", f"X-API-Key: {KEY}"), 404),
        (get("/v1/authorized", f"X-API-Key: {KEY}"), 404),
        (question(method="OPTIONS", key="") [:-2] + b"Origin: https://app.example.com\r\n"
         b"Access-Control-Request-Method: GET\r\n\r\n", 401),
    ],
)  # fmt: skip
async def test_refused_authorization_has_its_status_and_counts_no_usage(edge: Edge, data: bytes, status: int) -> None:
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


async def test_a_path_that_the_proxy_would_forward_in_another_form_is_refused(edge: Edge) -> None:
    for uri in (
        "/v1/../public/x",
        "/v1/%2e%2e/public/x",
        "/public/./x",
        "/public/%61",
        "/public/%c3%a4",
        "/public/..;/x",
    ):
        assert (await answered(edge, question(uri, key=""))).status == 400, uri
    for uri in ("/public/%C3%A4", "/public/x?y=/../%2e%61", '/public/x?y={"z":1}', "/public//x;y"):
        assert (await answered(edge, question(uri, key=""))).status == 200, uri


async def test_untrusted_caller_of_authorize_gets_403(edge: Edge) -> None:
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
