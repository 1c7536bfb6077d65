"""Forbidden requests are refused, and the audit log names their tokens."""

import re
import signal
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from edgeproxy.base.timestamps import format_timestamp
from loadtest.testbed.batch_chains import Chain
from loadtest.testbed.collector import ADMIN, EDGE, OWN, READ, REGIONAL, SERVICE, Collector, sha256
from loadtest.testbed.waiting import until
from tests.support.collector_fixtures import StartCollector, only_sqlite
from tests.support.oidc import AUDIENCE, THERE, Provider

OLD, NEW, PAST = "old-secret", "new-secret", "past-secret"
TOKENS = [
    {"name": "admin", "sha256": sha256(ADMIN), "role": "admin", "sensitive": True},
    {"name": "machine", "sha256": sha256(SERVICE), "role": "admin"},
    {"name": "reader", "sha256": sha256(READ), "role": "read"},
    {"name": "edges", "sha256": sha256(EDGE), "role": "edge", "region": "eu"},
    {"name": "others", "sha256": sha256(REGIONAL), "role": "edge"},
    {"name": "own", "sha256": sha256(OWN), "customer": "bound"},
    {"name": "ended", "sha256": sha256(PAST), "role": "read", "expires": "2020-01-01"},
    {"name": "renewed", "sha256": [sha256(OLD), sha256(NEW)], "role": "read"},
]
"""The tokens of the settings file. The secret NEW replaces OLD."""


@pytest.fixture
def provider(tmp_path: Path) -> Iterator[Provider]:
    if not THERE:
        pytest.skip("oidc-provider is not on this machine")
    with closing(Provider(tmp_path)) as made:
        yield made.start()


@only_sqlite("database")
def test_each_forbidden_request_is_refused_and_recorded_with_its_actor(
    start_collector: StartCollector, provider: Provider
) -> None:
    second_factor = {"amr": ["mfa"]}
    roles = {"claim": "groups", "admin": ["ops"]}
    operators = {"issuer": provider.issuer, "audience": AUDIENCE, "roles": roles, "second_factor": second_factor}
    collector = start_collector(tokens=TOKENS, operators=operators)
    chain, far = Chain(region="eu"), Chain(region="us")
    assert collector.post(chain.next()).status == 200
    made(collector, "/v1/customers", name="acme", tier="basic")
    acme = {"customer": "acme", "key": made(collector, "/v1/customers/acme/keys")["id"]}
    shown = made(collector, name="shown", role="read")
    soon = format_timestamp(int(time.time() * 1000) + 5000)
    short = made(collector, name="short", role="read", expires_at=soon)
    # One token is replaced over HTTP, one in the file, and one expires.
    for token in (shown["secret"], OLD):
        assert collector.get("/v1/usage", token=token).status == 200
    assert collector.send("POST", "/v1/tokens/shown", {"overlap": "0s"}).status == 201
    collector.settings["tokens"] = [*TOKENS[:-1], {**TOKENS[-1], "sha256": sha256(NEW)}]
    collector.write()
    assert collector.process is not None
    collector.process.send_signal(signal.SIGHUP)
    for token in (OLD, short["secret"]):
        until(lambda token=token: collector.get("/v1/usage", token=token).status == 401, "the token has ended")
    assert collector.get("/v1/usage", token=NEW).status == 200

    person = provider.token("ops-by-password")
    batches, usage, one = "POST /v1/batches", "GET /v1/usage", "DELETE /v1/customers/{customer}"
    tried = [
        ("others", batches, 403, "bound to another token", collector.post(chain.next(), token=REGIONAL)),
        ("edges", batches, 403, "bound to region eu, not to us", collector.post(far.next())),
        ("own", usage, 403, "another customer", collector.get("/v1/usage", token=OWN, customer="acme")),
        (
            "operator:ops-by-password",
            one,
            401,
            "a second factor",
            collector.send("DELETE", "/v1/customers/acme", token=person),
        ),
        ("machine", one, 403, "it is sensitive", collector.send("DELETE", "/v1/customers/acme", token=SERVICE)),
        ("ended", usage, 401, "ended has expired", collector.get("/v1/usage", token=PAST)),
        ("short", usage, 401, "short has expired", collector.get("/v1/usage", token=short["secret"])),
        ("shown", usage, 401, "shown was replaced", collector.get("/v1/usage", token=shown["secret"])),
        # The collector cannot know the name of a secret that is no longer in the file.
        ("unknown", usage, 401, "not known here", collector.get("/v1/usage", token=OLD)),
    ]
    for path, methods in collector.get("/v1/openapi.json").json()["paths"].items():
        if "{customer}" in path or "{key}" in path:
            at = re.sub(r"{(\w+)}", lambda found: acme.get(found[1], "any"), path)
            for method in (name.upper() for name in methods if name != "parameters"):
                tried.append(("own", f"{method} {path}", 403, "bound", collector.send(method, at, {}, token=OWN)))
    assert {"POST /v1/keys/{key}/rotate", "PATCH /v1/customers/{customer}"} <= {target for _, target, *_ in tried}
    collector.end()
    collector.start()
    found = collector.get("/v1/audit", token=ADMIN, action="denied", limit="1000").json()["entries"]
    for actor, target, status, why, answer in tried:
        assert answer.status == status, (actor, target, answer)
        assert any(
            (entry["actor"], entry["target"], entry["after"]["status"]) == (actor, target, status)
            and why in entry["after"]["why"]
            and entry["origin"] == "127.0.0.1"
            for entry in found
        ), (actor, target, why, found)
    assert collector.usage()["total"] == 7, "of what was refused nothing counts"
    assert {
        customer["deleting_since"] for customer in collector.get("/v1/customers", token=ADMIN).json()["customers"]
    } == {None}


def made(collector: Collector, path: str = "/v1/tokens", **said: Any) -> dict[str, Any]:
    answer = collector.send("POST", path, said)
    assert answer.status == 201, answer
    body: dict[str, Any] = answer.json()
    return body
