"""Webhook endpoints of a real collector: creation to deletion, permissions, and recovery after SIGKILL."""

import base64
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook
from typer.testing import CliRunner

from edgeproxy import cli
from loadtest.testbed.collector import ADMIN, OWN, READ, SERVICE, Collector
from loadtest.testbed.ports import HOST
from loadtest.testbed.postgresql import Postgresql
from loadtest.testbed.waiting import until
from tests.support.collector_fixtures import StartCollector
from tests.support.receivers import Receiver

KEY = base64.b64encode(b"k" * 32).decode()
WEBHOOKS = {"encryption": KEY, "networks": ["127.0.0.0/8"]}
ALL = "/v1/customers/{}/webhook-endpoints"
BOUND = ALL.format("bound")


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with Receiver() as made:
        yield made


def make(collector: Collector, *names: str) -> None:
    for name in names:
        created = collector.send("POST", "/v1/customers", {"name": name, "tier": "basic"})
        assert created.status == 201, created


def test_endpoint_is_created_updated_and_deleted(start_collector: StartCollector, receiver: Receiver) -> None:
    collector = start_collector(webhooks=WEBHOOKS)
    make(collector, "bound", "bolt")
    path = f"/life-{time.time_ns()}"
    url = f"http://{HOST}:{receiver.port}{path}"
    body = {"url": url, "types": ["key.created", "key.revoked"]}
    tried = collector.send("POST", f"{BOUND}?dry_run=true", body, token=OWN)
    assert (tried.status, "secret" in tried.json()) == (200, False)
    assert collector.get(BOUND, token=OWN).json() == {"endpoints": []}
    made = [collector.send("POST", BOUND, body, token=OWN, Idempotency_Key="once").json() for _ in range(2)]
    assert made[0] == made[1]
    endpoint, secret = made[0]["id"], made[0]["secret"]
    one = f"{BOUND}/{endpoint}"

    # The endpoint gets signed messages of its types, created in the transaction of the change.
    key = collector.send("POST", "/v1/customers/bound/keys", {}).json()["id"]
    assert collector.send("PATCH", f"/v1/keys/{key}", {"name": "another"}).status == 200
    assert collector.send("DELETE", f"/v1/keys/{key}", token=OWN).status == 200
    assert collector.send("POST", "/v1/customers/bolt/keys", {}).status == 201
    until(lambda: len(receiver.on(path)) == 2, "both are there")
    told = [Webhook(secret).verify(hook.body, hook.fields) for hook in receiver.on(path)]
    assert sorted(body["type"] for body in told) == ["key.created", "key.revoked"]
    assert {body["data"]["id"] for body in told} == {key}

    # A test message is redelivered.
    test = collector.send("POST", f"{one}/test", token=OWN)
    assert (test.status, test.json()["type"], test.json()["state"]) == (202, "webhook.test", "due")
    message = test.json()["id"]

    def is_sent() -> bool:
        listed = collector.get(f"{one}/messages", token=OWN).json()["messages"]
        return {message["state"] for message in listed} == {"sent"} and listed[0]["id"] == message

    until(is_sent, "the message is sent")
    assert collector.send("POST", f"{one}/messages/{message}/redeliver", token=OWN).status == 202
    until(lambda: len(receiver.on(path)) == 4, "the message is sent again")
    page = collector.get(f"{one}/messages", limit="2").json()
    rest = collector.get(f"{one}/messages", limit="2", cursor=page["next"]).json()
    assert (len(page["messages"]), len(rest["messages"]), "next" in rest) == (2, 1, False)

    # Changes.
    rotated = collector.send("POST", f"{one}/secret", token=OWN)
    assert (rotated.status, rotated.json()["secret"] != secret) == (201, True)
    assert rotated.json()["old_secret_until"] is not None
    etag = collector.get(one)["etag"]
    changed = collector.send("PATCH", one, {"state": "disabled", "types": None}, token=OWN, If_Match=etag)
    assert (changed.json()["state"], changed.json()["types"]) == ("disabled", None)
    assert changed.json()["disabled_why"] == "disabled by hand"
    assert collector.send("PATCH", one, {"state": "enabled"}, token=OWN, If_Match=etag).status == 412
    assert collector.send("POST", f"{one}/test", token=OWN).status == 409
    for refused in ({"url": None}, {"url": "ftp://x.example"}, {"types": ["no.such"]}, {"types": []}, {"secret": "x"}):
        assert collector.send("PATCH", one, refused, token=OWN).status == 422, refused
    for _ in range(9):
        assert collector.send("POST", BOUND, body, token=OWN).status == 201
    assert collector.send("POST", BOUND, body, token=OWN).status == 409, "ten are as many as there may be"
    assert collector.send("DELETE", one, token=OWN).status == 200
    assert collector.get(one, token=OWN).status == 404
    assert len(collector.get(BOUND).json()["endpoints"]) == 9

    # The audit log has the changes. Neither the log nor the output has a secret or the URL's path.
    entries = collector.get("/v1/audit", token=ADMIN, target=f"bound/{endpoint}").json()["entries"]
    actions = ["create", "test", "redeliver", "rotate", "change", "delete"]
    assert [entry["action"] for entry in entries] == [f"webhook.{action}" for action in actions]
    secrets = (secret, rotated.json()["secret"], path)
    assert not any(text in str(entries) + collector.output for text in secrets)
    assert collector.metric("collector_webhook_attempts_total", result="sent") == 4


def test_endpoints_of_other_customers_are_inaccessible(start_collector: StartCollector, receiver: Receiver) -> None:
    collector = start_collector(webhooks=WEBHOOKS)
    make(collector, "bound", "bolt")
    bolt = ALL.format("bolt")
    url = f"http://{HOST}:{receiver.port}/bolt"
    assert collector.send("POST", bolt, {"url": url}, token=OWN).status == 403
    assert collector.send("POST", bolt, {"url": url}, token=READ).status == 403
    assert collector.send("POST", bolt, {"url": url}, token=SERVICE).status == 403
    endpoint = collector.send("POST", bolt, {"url": url}).json()["id"]
    message = collector.send("POST", f"{bolt}/{endpoint}/test").json()["id"]
    calls: list[tuple[str, str, Any]] = [
        ("GET", "", None),
        ("PATCH", "", {"url": url}),
        ("DELETE", "", None),
        ("POST", "/secret", None),
        ("POST", "/test", None),
        ("GET", "/messages", None),
        ("POST", f"/messages/{message}/redeliver", None),
    ]
    for method, path, content in calls:
        answer = collector.send(method, f"{bolt}/{endpoint}{path}", content, token=OWN)
        assert answer.status == 403, (method, path, answer)
        answer = collector.send(method, f"{BOUND}/{endpoint}{path}", content, token=OWN)
        assert answer.status == 404, (method, path, answer)
    own = collector.send("POST", BOUND, {"url": url}, token=OWN).json()["id"]
    crossed = collector.send("POST", f"{BOUND}/{own}/messages/{message}/redeliver", token=OWN)
    assert crossed.status == 404, "the message is not one to this endpoint"
    assert collector.get(bolt).json()["endpoints"][0]["state"] == "enabled"


def test_endpoints_require_an_encryption_key_and_a_public_https_url(start_collector: StartCollector) -> None:
    collector = start_collector()
    make(collector, "bound")
    refused = collector.send("POST", BOUND, {"url": "https://hooks.acme.example/"}, token=OWN)
    assert refused.status == 404
    assert "customers have no webhooks here" in refused.json()["detail"]
    collector.end()
    collector.settings["webhooks"] = {"encryption": KEY}
    collector.start()
    urls = ("http://a.example/", "https://127.0.0.1/", "https://[::ffff:10.0.0.1]/", "https://a:b@c.example/")
    for url in urls:
        assert collector.send("POST", BOUND, {"url": url}, token=OWN).status == 422, url
    assert collector.send("POST", BOUND, {"url": "https://hooks.acme.example/"}, token=OWN).status == 201


def test_commands_manage_webhook_endpoints(start_collector: StartCollector, receiver: Receiver) -> None:
    collector = start_collector(webhooks=WEBHOOKS)
    make(collector, "bound")
    environ = {"EDGEPROXY_COLLECTOR": f"http://{HOST}:{collector.port}", "EDGEPROXY_TOKEN": ADMIN}

    def run(*words: str) -> str:
        done = CliRunner().invoke(cli.app, ["webhooks", *words], env=environ)
        assert done.exit_code == 0, done.output
        return done.output

    path = f"/commands-{time.time_ns()}"
    added = run("add", "bound", f"http://{HOST}:{receiver.port}{path}", "--type", "invoice.paid")
    assert "whsec_" in added
    endpoint = collector.get(BOUND).json()["endpoints"][0]["id"]
    assert endpoint in run("ls", "bound")
    assert "whsec_" not in run("show", "bound", endpoint)
    assert "whsec_" in run("rotate", "bound", endpoint)
    run("test", "bound", endpoint)
    until(lambda: "sent" in run("messages", "bound", endpoint), "the test message is sent")
    message = receiver.on(path)[0].fields["webhook-id"]
    run("redeliver", "bound", endpoint, message)
    assert "disabled" in run("disable", "bound", endpoint)
    assert "enabled" in run("enable", "bound", endpoint)
    run("delete", "bound", endpoint)
    assert endpoint not in run("ls", "bound")


def test_other_collector_delivers_messages_of_a_killed_one(
    tmp_path: Path, postgresql: Postgresql, receiver: Receiver
) -> None:
    """The first is killed while the receiver has its message and has not answered yet."""
    path = "/killed"
    url = postgresql.database()
    one, other = (Collector(tmp_path / name, url, webhooks=WEBHOOKS) for name in ("one", "other"))
    receiver.held.add(path)
    with closing(one), closing(other):
        one.start()
        make(one, "bound")
        body = one.send("POST", BOUND, {"url": f"http://{HOST}:{receiver.port}{path}"}, token=OWN).json()
        message = one.send("POST", f"{BOUND}/{body['id']}/test", token=OWN).json()["id"]
        until(lambda: receiver.on(path), "the receiver has the message")
        other.start()
        one.kill()
        receiver.held.discard(path)
        for _ in range(3):
            assert other.send("POST", f"{BOUND}/{body['id']}/test", token=OWN).status == 202
        until(lambda: len({hook.fields["webhook-id"] for hook in receiver.on(path)}) == 4, "all are there")
        # End the first collector's lease, which would last a minute.
        postgresql.ask_in(url.rpartition("/")[2], "UPDATE webhook_deliveries SET busy_until = 0 WHERE state = 'due'")
        listing = f"{BOUND}/{body['id']}/messages"
        until(lambda: {row["state"] for row in other.get(listing).json()["messages"]} == {"sent"}, "all are sent")
        ids = [hook.fields["webhook-id"] for hook in receiver.on(path)]
        assert sorted(ids.count(id_) for id_ in set(ids)) == [1, 1, 1, 2], "the one under way came twice, the same"
        assert ids.count(message) == 2
        hooks = [hook for hook in receiver.on(path) if hook.fields["webhook-id"] == message]
        assert hooks[0].body == hooks[1].body
        assert Webhook(body["secret"]).verify(hooks[1].body, hooks[1].fields)["type"] == "webhook.test"
