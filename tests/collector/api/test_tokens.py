"""Tokens that are made, replaced and revoked over HTTP."""

import itertools
from typing import Any

import orjson
import pytest

from edgeproxy.config.key_form import generate_key
from loadtest.testbed.batch_chains import Chain
from loadtest.testbed.collector import ADMIN, READ, Collector
from loadtest.testbed.http_client import Answer, Wire, ask
from tests.support.collector_fixtures import StartCollector, only_sqlite

NUMBERS = itertools.count()


def post(collector: Collector, path: str, token: str = ADMIN, **said: Any) -> Answer:
    fields = {"Authorization": f"Bearer {token}"}
    return ask(collector.port, path, method="POST", fields=fields, body=orjson.dumps(said))


def make(collector: Collector, **said: Any) -> dict[str, Any]:
    name = f"made-{next(NUMBERS)}"
    answer = post(collector, "/v1/tokens", name=name, **said)
    assert answer.status == 201, answer
    body: dict[str, Any] = answer.json()
    assert body["name"] == name
    return body


def delete(collector: Collector, path: str, token: str = ADMIN) -> Answer:
    return ask(collector.port, path, method="DELETE", fields={"Authorization": f"Bearer {token}"})


def test_token_has_the_rights_of_its_role_until_revoked(collector: Collector) -> None:
    reader, own = make(collector, role="read"), make(collector, customer="acme")
    assert collector.get("/v1/usage", token=reader["secret"]).status == 200
    assert collector.get("/v1/usage", token=own["secret"], customer="bolt").status == 403
    assert post(collector, "/v1/customers", reader["secret"], name="x", tier="basic").status == 403
    assert collector.get("/v1/tokens", token=reader["secret"]).status == 403
    body = collector.get(f"/v1/tokens/{reader['name']}", token=ADMIN).json()
    assert body == {name: value for name, value in reader.items() if name != "secret"}
    assert (body["source"], body["created_by"], body["secrets"]) == ("api", "admin", 1)
    listed = collector.get("/v1/tokens", token=ADMIN)
    assert {"admin", "regional", reader["name"]} <= {token["name"] for token in listed.json()["tokens"]}
    assert reader["secret"].encode() not in listed.body
    assert delete(collector, f"/v1/tokens/{reader['name']}").status == 200
    assert collector.get("/v1/usage", token=reader["secret"]).status == 401
    assert delete(collector, f"/v1/tokens/{reader['name']}").status == 404
    entries = collector.get("/v1/audit", token=ADMIN, target=reader["name"], limit="1000").json()["entries"]
    assert [(entry["action"], entry["actor"]) for entry in entries] == [
        ("token.create", "admin"),
        ("token.revoke", "admin"),
    ]
    assert reader["secret"] not in repr(entries)


def test_request_with_two_tokens_answers_401(collector: Collector) -> None:
    for first, second in ((ADMIN, READ), (READ, ADMIN)):
        with Wire(collector.port) as wire:
            fields = f"Authorization: Bearer {first}\r\nAuthorization: Bearer {second}\r\n"
            wire.send(f"GET /v1/usage HTTP/1.1\r\nHost: collector\r\n{fields}\r\n".encode())
            assert wire.hear().status == 401


def test_a_replaced_secret_ends_and_its_edges_stay_bound(collector: Collector) -> None:
    created, chain = make(collector, role="edge"), Chain()
    assert collector.post(chain.next(), token=created["secret"]).status == 200
    path = f"/v1/tokens/{created['name']}"
    overlapping = post(collector, path, overlap="1d").json()
    assert overlapping["secrets"] == 2
    for secret in (created["secret"], overlapping["secret"]):
        assert collector.post(chain.next(), token=secret).status == 200
    at_once = post(collector, path, overlap="0s").json()
    assert at_once["secrets"] == 1
    batch = chain.next()
    for secret in (created["secret"], overlapping["secret"]):
        assert collector.post(batch, token=secret).status == 401, "the token is replaced"
    assert collector.post(batch, token=at_once["secret"]).status == 200
    assert collector.post(chain.next(), token=make(collector, role="edge")["secret"]).status == 403


@only_sqlite("collector")
def test_token_has_its_expiry_time_and_refuses_a_past_one(collector: Collector) -> None:
    soon = make(collector, role="read", expires_at="2099-01-01T00:00:00Z")
    assert soon["expires_at"].startswith("2099-01-01")
    past = post(collector, "/v1/tokens", name="past", role="read", expires_at="2020-01-01")
    assert (past.status, past.json()["errors"][0]["field"]) == (422, "expires_at")


@only_sqlite("collector")
def test_token_without_sensitive_rights_creates_no_stronger_token(collector: Collector) -> None:
    second = make(collector, role="admin")
    assert post(collector, "/v1/tokens", second["secret"], name="third", role="admin").status == 403
    assert post(collector, f"/v1/tokens/{second['name']}", second["secret"], overlap="0s").status == 403
    assert delete(collector, "/v1/customers/acme", second["secret"]).status == 403
    assert post(collector, "/v1/tokens", second["secret"], name=f"made-{next(NUMBERS)}", role="read").status == 201


@only_sqlite("database")
def test_idempotent_replay_hides_the_secret_after_rights_are_lost(start_collector: StartCollector) -> None:
    collector = start_collector()
    asked: list[tuple[str, dict[str, Any], str]] = [
        ("/v1/tokens", {"name": "second", "role": "admin"}, "first-key"),
        ("/v1/tokens/second", {"overlap": "1d"}, "second-key"),
    ]

    def tries() -> list[tuple[int, str | None]]:
        answers = [collector.send("POST", path, said, Idempotency_Key=key) for path, said, key in asked]
        return [(answer.status, answer.json().get("secret")) for answer in answers]

    told = tries()
    assert [status for status, _ in told] == [201, 201]
    assert tries() == told
    collector.end()
    for token in collector.settings["tokens"]:
        token.pop("sensitive", None)
    collector.start()
    assert tries() == [(403, None), (403, None)]


@only_sqlite("collector")
@pytest.mark.parametrize(
    ("said", "status"),
    [
        ({"name": "admin", "role": "read"}, 409),
        ({"name": "none"}, 422),
        ({"name": "both", "role": "read", "customer": "acme"}, 422),
        ({"name": "bound", "role": "read", "edge": "e"}, 422),
        ({"name": "unknown", "role": "root"}, 422),
        ({"name": "no name", "role": "read"}, 422),
    ],
)
def test_invalid_token_request_is_refused(collector: Collector, said: dict[str, Any], status: int) -> None:
    assert post(collector, "/v1/tokens", **said).status == status


@only_sqlite("collector")
def test_a_secret_of_the_same_form_is_not_known(collector: Collector) -> None:
    secret = generate_key("token")
    for wrong in (secret, secret[:-1] + ("0" if secret[-1] != "0" else "1"), "token_v1_", READ + "x"):
        assert collector.get("/v1/usage", token=wrong).status == 401
