"""Where clients may send their keys, and what upstreams see of them."""

from base64 import b64encode

import pytest

from edgeproxy.edge.errors import RejectedError
from edgeproxy.edge.proxy.routing.query_key import find_key, remove_key
from tests.support.transcript import EXPIRED, KEY, UNLIMITED, Edge, get, ok

JWT = "Authorization: Bearer eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln"


async def test_a_key_and_the_application_s_own_bearer_token_go_together(edge: Edge) -> None:
    request, answer = await edge.passes(get("/v1/x", f"X-API-Key: {KEY}", JWT), ok())
    assert answer.status == 200
    assert (request["X-Customer-Id"], request["Authorization"]) == ("acme", JWT.partition(": ")[2])
    assert "X-API-Key" not in request


async def test_fields_that_hold_no_keys_are_the_application_s_own(edge: Edge) -> None:
    edge.config["auth"] = {"fields": "X-Key"}
    request, _ = await edge.passes(get("/v1/x", f"X-Key: {KEY}", JWT, "X-API-Key: theirs"), ok())
    assert (request["X-Customer-Id"], request["Authorization"]) == ("acme", JWT.partition(": ")[2])
    assert request["X-API-Key"] == "theirs"
    assert "X-Key" not in request
    refused = await edge.refuses(get("/v1/x", f"X-API-Key: {KEY}"))
    assert (refused.status, refused["WWW-Authenticate"]) == (401, 'ApiKey realm="edgeproxy"')
    assert b"Send it as X-Key: KEY" in refused.body


async def test_request_without_a_key_answers_how_to_send_one(edge: Edge) -> None:
    refused = await edge.refuses(get("/v1/x"))
    assert b"Send it as X-API-Key: KEY or Authorization: Bearer KEY" in refused.body


async def test_a_key_may_come_in_the_query(edge: Edge) -> None:
    edge.config["auth"] = {"query": "api_key"}
    for sent, seen in (
        ("/v1/x?api_key=KEY", "/v1/x"),
        ("/v1/x?a=1&api%5Fkey=KEY&b=%20", "/v1/x?a=1&b=%20"),
        ("/v1/x?api_key=key%2Dof-acme&", "/v1/x?"),
        ("/maybe/x?api_key=KEY", "/maybe/x"),
        ("/maybe/x?a=1", "/maybe/x?a=1"),
        ("/public/x?api_key=KEY", "/public/x?api_key=KEY"),
    ):
        request, answer = await edge.passes(get(sent.replace("KEY", KEY)), ok())
        assert answer.status == 200
        assert request.first == f"GET {seen.replace('KEY', KEY)} HTTP/1.1"
        assert ("X-Customer-Id" in request) == (("/public/" not in sent and "a=1" not in sent) or "%5F" in sent)


async def test_a_query_s_key_is_no_better_than_another(edge: Edge) -> None:
    edge.config["auth"] = {"query": "api_key"}
    for query in ("", "?api_key=", "?api_key=nobody", f"?api_key={EXPIRED}", "?x=api_key"):
        assert (await edge.refuses(get(f"/v1/x{query}"))).status == 401
    assert (await edge.refuses(get(f"/v1/x?api_key={KEY}&api_key={KEY}"))).status == 400
    # The field comes first, and the parameter passes nowhere.
    request, _ = await edge.passes(get(f"/v1/x?api_key={KEY}", f"X-API-Key: {UNLIMITED}"), ok())
    assert (request["X-Customer-Id"], request.first) == ("free", "GET /v1/x HTTP/1.1")


async def test_key_in_the_query_is_ignored_by_default(edge: Edge) -> None:
    assert (await edge.refuses(get(f"/v1/x?api_key={KEY}"))).status == 401


async def test_a_key_may_come_in_a_cookie_and_as_a_subprotocol(edge: Edge) -> None:
    edge.config["auth"] = {"cookie": "edge_key", "websocket_protocol": True}
    request, _ = await edge.passes(get("/v1/x", f"Cookie: theme=dark; edge_key={KEY}"), ok())
    assert (request["X-Customer-Id"], request["Cookie"]) == ("acme", "theme=dark")
    request, _ = await edge.passes(get("/v1/x", f"Sec-WebSocket-Protocol: chat, api-key.{KEY}"), ok())
    assert (request["X-Customer-Id"], request["Sec-WebSocket-Protocol"]) == ("acme", "chat")
    request, _ = await edge.passes(get("/public/x", f"Cookie: theme=dark; edge_key={KEY}"), ok())
    assert request["Cookie"] == f"theme=dark; edge_key={KEY}"


def basic(credentials: str) -> str:
    return f"Authorization: bAsic {b64encode(credentials.encode()).decode()}"


async def test_key_may_come_as_user_or_password(edge: Edge) -> None:
    """`curl -u KEY:` sends it as the user, `git clone https://x:KEY@…` as the password."""
    edge.config["auth"] = {"basic": True}
    edge.config["routes"][0]["challenge"] = "basic"
    for credentials in (f"{KEY}:", f"x:{KEY}", f":{KEY}", f"{UNLIMITED}:{KEY}"):
        request, _ = await edge.passes(get("/v1/x", basic(credentials)), ok())
        assert request["X-Customer-Id"] == "acme"
        assert "Authorization" not in request
    request, _ = await edge.passes(get("/v1/x", f"Authorization: Bearer {KEY}"), ok())
    assert request["X-Customer-Id"] == "acme"
    others = ("Authorization: Basic", "Authorization: Basic !", "Authorization: Basicx")
    for field in ("X-Other: 1", basic(KEY), basic("a:b"), *others):
        answer = await edge.refuses(get("/v1/x", field))
        assert (answer.status, answer["WWW-Authenticate"]) == (401, 'Basic realm="edgeproxy", charset="UTF-8"')
    request, _ = await edge.passes(get("/public/x", basic("app:own")), ok())
    assert request["Authorization"] == basic("app:own").partition(": ")[2]
    # If the key comes in another field, the application's credentials stay.
    request, _ = await edge.passes(get("/v1/x", f"X-API-Key: {KEY}", basic("app:own")), ok())
    assert "Authorization" in request


async def test_basic_credentials_are_no_key_by_default(edge: Edge) -> None:
    answer = await edge.refuses(get("/v1/x", basic(f"{KEY}:")))
    assert (answer.status, answer["WWW-Authenticate"]) == (401, 'Bearer realm="edgeproxy"')


async def test_reload_changes_the_key_fields_of_cached_lines(edge: Edge) -> None:
    fields = (f"X-Key: {KEY}", "X-API-Key: theirs")
    assert (await edge.refuses(get("/v1/x", *fields))).status == 401
    edge.config["auth"] = {"fields": ["X-Key"]}
    await edge.reloads()
    request, _ = await edge.passes(get("/v1/x", *fields), ok())
    assert (request["X-Customer-Id"], request["X-API-Key"]) == ("acme", "theirs")


LINE = b"GET /p?%b HTTP/1.1\r\n"


def test_key_parameter_is_found_and_removed_in_any_encoding() -> None:
    assert find_key(LINE % b"a=1&%6Bey=a%2Bb", b"key") == b"a+b"
    assert find_key(LINE % b"akey=1&keya=2", b"key") is None
    assert remove_key(LINE % b"a=1&%6Bey=a%2Bb", b"key") == LINE % b"a=1"
    assert remove_key(LINE % b"akey=1", b"key") == LINE % b"akey=1"
    assert remove_key(LINE % b"key", b"key") == b"GET /p HTTP/1.1\r\n"
    assert remove_key(b"GET /p HTTP/1.1\r\n", b"key") == b"GET /p HTTP/1.1\r\n"
    with pytest.raises(RejectedError):
        find_key(LINE % b"key=a&key=a", b"key")
