"""The accounts API: each change of a customer, key or flag happens once, and reaches the audit log and the outbox."""

import asyncio
import hashlib
import itertools
import re
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import orjson
import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.base.timestamps import format_timestamp
from edgeproxy.collector.accounts import documents, keys
from edgeproxy.collector.accounts.audit import Caller
from edgeproxy.collector.accounts.change import ChangeRejectedError
from edgeproxy.collector.accounts.ids import now_ms
from edgeproxy.collector.anomalies.job import WHY_PAUSED
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.quota_tables import limit_raises as raises_table
from edgeproxy.collector.database.schema import customers as customers_table
from edgeproxy.collector.database.schema import keys as keys_table
from edgeproxy.collector.privacy import erasure
from edgeproxy.config.directory import parse_customer, parse_document
from edgeproxy.config.key_form import REGEX, is_miswritten
from edgeproxy.wire.key_uses import FIELD, KeysUsed
from loadtest.testbed.batch_chains import Chain
from loadtest.testbed.collector import ADMIN, EDGE, OWN, READ, SERVICE, Collector
from loadtest.testbed.http_client import Answer, ask
from loadtest.testbed.waiting import until
from tests.support.collector_fixtures import only_sqlite
from tests.support.used_database import use_database

NUMBERS = itertools.count()
T = TypeVar("T")


def name() -> str:
    """Return a customer name that no other test uses."""
    return f"c{next(NUMBERS)}"


def made(answer: Answer, status: int = 201) -> dict[str, Any]:
    assert answer.status == status, answer
    body: dict[str, Any] = answer.json()
    return body


def customer(collector: Collector, **more: Any) -> dict[str, Any]:
    return made(collector.send("POST", "/v1/customers", {"name": name(), "tier": "basic", **more}))


def key(collector: Collector, of: str, **more: Any) -> dict[str, Any]:
    return made(collector.send("POST", f"/v1/customers/{of}/keys", more))


def record(collector: Collector, target: str) -> list[tuple[str, Any, Any]]:
    """Return the audit log's entries about a target."""
    entries = collector.get("/v1/audit", token=ADMIN, target=target, limit="1000").json()["entries"]
    return [(entry["action"], entry["before"], entry["after"]) for entry in entries]


def test_customer_endpoints_cover_the_life_of_a_customer(collector: Collector) -> None:
    new = {
        "name": name(),
        "tier": "basic",
        "external_id": f"x-{next(NUMBERS)}",
        "metadata": {"plan": "2"},
        "limits": [{"rate": "60/min"}],
        "flags": [],
        "rotate_every": "90d",
    }
    one = made(collector.send("POST", "/v1/customers", new))
    assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", one["id"])
    assert (one["name"], one["state"], one["metadata"]) == (new["name"], "active", {"plan": "2"})
    assert [(limit["name"], limit["rate"]) for limit in one["limits"]] == [("basic", "60/min")]
    for ref in (one["id"], one["name"]):
        answer = collector.get(f"/v1/customers/{ref}")
        assert (answer.json(), answer["etag"]) == (one, '"1"')
    assert collector.send("POST", "/v1/customers", new).status == 409
    assert collector.send("POST", "/v1/customers", {**new, "name": name()}).status == 409

    path = f"/v1/customers/{one['id']}"
    pause = {"paused": {"why": "unpaid", "status": 402}, "limits": None}
    changed = made(collector.send("PATCH", path, pause, If_Match='"1"'), 200)
    assert (changed["state"], changed["paused"], changed["limits"]) == (
        "paused",
        {"why": "unpaid", "status": 402},
        None,
    )
    assert collector.send("PATCH", path, {"paused": None}, If_Match='"1"').status == 412
    assert made(collector.send("PATCH", path, {"paused": None}, If_Match='"2"'), 200)["state"] == "active"
    assert collector.send("PATCH", path, {"tier": None}).status == 422
    assert made(collector.send("DELETE", path), 202)["state"] == "deleting"
    assert made(collector.get(path), 200)["state"] == "deleting"
    assert collector.send("POST", f"{path}/keys", {}).status == 409
    back = collector.send("POST", f"{path}/restore", If_Match='"4"')
    assert (back.json()["state"], back.json()["deleting_since"], back["etag"]) == ("active", None, '"5"')
    assert collector.send("POST", f"{path}/restore").status == 409
    assert made(collector.send("DELETE", path), 202)["state"] == "deleting"
    assert erased(collector) == [one["name"]]
    assert erased(collector) == []
    left = made(collector.get(path), 200)
    assert (left["state"], left["metadata"], left["external_id"], left["tier"]) == ("deleted", {}, None, "basic")
    assert collector.send("PATCH", path, {"metadata": {"a": "b"}}).status == 409
    assert collector.send("POST", f"{path}/restore").status == 409
    assert [action for action, _, _ in record(collector, one["name"])] == [
        "customer.create", "customer.change", "customer.change", "customer.delete", "customer.restore",
        "customer.delete", "customer.erase",
    ]  # fmt: skip
    assert record(collector, one["name"])[1][1:] == (
        {"paused": None, "limits": one["limits"], "state": "active"},
        {"paused": {"why": "unpaid", "status": 402}, "limits": None, "state": "paused"},
    )


def test_raised_limits_apply_until_their_end(collector: Collector) -> None:
    own = customer(collector, limits=[{"rate": "60/min"}])["name"]
    path = f"/v1/customers/{own}/limits/raise"
    token = made(collector.send("POST", "/v1/tokens", {"name": f"of-{own}", "customer": own}))["secret"]
    roles = ("support", "billing")
    support, billing = (
        made(collector.send("POST", "/v1/tokens", {"name": f"{role}-{own}", "role": role}))["secret"] for role in roles
    )
    new = {"factor": 2, "for": "8h", "why": "a launch"}
    for outsider in (billing, READ, token, SERVICE, EDGE):
        assert collector.send("POST", path, new, token=outsider).status == 403
        assert collector.send("DELETE", path, token=outsider).status == 403
    for field, values in {
        "factor": (3, "2", 2.0, True, None),
        "for": ("59min", "25h", "0s", 3600),
        "why": ("",),
    }.items():
        for value in values:
            wrong = collector.send("POST", path, {**new, field: value}, token=support)
            assert (wrong.status, [error["field"] for error in wrong.json()["errors"]]) == (422, [field]), (
                field,
                value,
            )
    assert made(collector.send("POST", f"{path}?dry_run=true", new, token=support), 200)["raised"]["factor"] == 2
    assert made(collector.get(path, token=token), 200) == {"customer": own, "raised": None}

    began = time.time()
    first = made(collector.send("POST", path, new, token=support))["raised"]
    assert 8 * 3600 - 1 < raise_in_line(collector, own)[1] - began < 8 * 3600 + 60
    second = made(collector.send("POST", path, {**new, "factor": 5, "for": "1h"}, token=support))["raised"]
    assert raise_in_line(collector, own)[0] == 5, "a second raise replaces the first"
    seen = made(collector.get(path, token=token), 200)["raised"]
    assert seen == {**second, "by": None, "why": None}, "its customer does not see who raised them"
    assert made(collector.send("DELETE", path, token=support), 200)["raised"] is None
    assert raise_in_line(collector, own) == (0, 0.0)
    made(collector.send("DELETE", path, token=support), 200)

    third = made(collector.send("POST", path, new, token=support))["raised"]
    over = now_ms() - 1

    async def pass_end(connection: AsyncConnection) -> None:
        owner = sa.select(customers_table.c.id).where(customers_table.c.name == own).scalar_subquery()
        await connection.execute(sa.update(raises_table).where(raises_table.c.customer == owner).values(ends_at=over))

    in_database(collector, pass_end)
    until(lambda: record(collector, own)[-1][0] == "limits.revert", "the collector takes it out of the directory")
    assert raise_in_line(collector, own) == (0, 0.0)
    assert [entry for entry in record(collector, own) if entry[0].startswith("limits.")] == [
        ("limits.raise", None, first),
        ("limits.raise", first, second),
        ("limits.revert", second, None),
        ("limits.raise", None, third),
        ("limits.revert", {**third, "ends_at": format_timestamp(over)}, None),
    ]

    made(collector.send("POST", path, new, token=support))
    made(collector.send("DELETE", f"/v1/customers/{own}"), 202)
    assert collector.send("POST", path, new, token=support).status == 409
    made(collector.send("POST", f"/v1/customers/{own}/restore"), 200)
    assert raise_in_line(collector, own) == (0, 0.0), "a restored customer has the usual limits"


def raise_in_line(collector: Collector, name: str) -> tuple[int, float]:
    """Return the factor and the end of a customer's raise in the directory, or zeros if there is none."""
    line = in_database(collector, lambda connection: documents.fetch_line(connection, name))
    raised = parse_customer(parse_document(line).customer or "", 0.0).raised
    return (0, 0.0) if raised is None else (raised.factor, raised.ends_at)


def in_database(collector: Collector, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
    """Do something in a transaction of the collector's database."""

    async def transact() -> T:
        database = await Database.connect(collector.settings["database"])
        try:
            async with database.writing() as connection:
                return await work(connection)
        finally:
            await database.close()

    return asyncio.run(transact())


def erased(collector: Collector) -> list[str]:
    """Erase the customers that are being deleted, as the collector does when they are due."""
    due = use_database(
        collector.settings["database"], lambda database: erasure.erase_due_customers(database, now_ms() + 1000)
    )
    return [one.name for one in due]


@only_sqlite("collector")
def test_invalid_customer_names_each_wrong_field(collector: Collector) -> None:
    answer = collector.send(
        "POST",
        "/v1/customers",
        {"name": "a b", "teir": "basic", "tier": "basik", "limits": [{"rate": "60"}], "metadata": {"a": 1}},
    )
    assert (answer.status, answer["content-type"]) == (422, "application/problem+json")
    found = {error["field"]: error["detail"] for error in answer.json()["errors"]}
    assert found.keys() == {"name", "teir", "limits.0.rate", "metadata"}
    assert found["teir"] == "unknown field, did you mean tier?"
    answer = collector.send("POST", "/v1/customers", {"tier": "basic"})
    assert answer.json()["errors"] == [{"field": "name", "code": "missing", "detail": "is missing, write it"}]
    answer = collector.send("POST", "/v1/customers", {"name": name(), "tier": "basik"})
    (fault,) = answer.json()["errors"]
    assert fault == {"field": "tier", "code": "tier-unknown", "detail": "there is no tier basik, did you mean basic?"}
    twice = [{"rate": "60/min", "name": "a"}, {"rate": "9/min", "name": "b"}]
    answer = collector.send("POST", "/v1/customers", {"name": name(), "tier": "basic", "limits": twice})
    assert answer.json()["errors"][0]["field"] == "limits.1"
    for wrong in (-5, 2**62, 2**63):
        answer = collector.send("POST", "/v1/customers", {"name": name(), "tier": "basic", "rotate_every": wrong})
        assert answer.json()["errors"][0]["field"] == "rotate_every"
    for wrong in ([], "x", 1):
        assert collector.send("POST", "/v1/customers", wrong).status == 422, wrong
    assert collector.send("POST", "/v1/customers", None).status == 400, "there is no body"


def test_key_rotation_counts_against_the_maximum_number_of_keys(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "KEYS_MAX", 3)
    owner = customer(collector)
    first, second = (key(collector, owner["id"])["id"] for _ in range(2))

    def rotate(ref: str, overlap: int) -> str:
        created = in_database(collector, lambda connection: keys.rotate_key(connection, Caller("bound"), ref, overlap))
        return created["id"]

    third = rotate(first, 3600)
    for ref in (second, third):
        with pytest.raises(ChangeRejectedError, match="3 is as many as there may be"):
            rotate(ref, 3600)
    assert rotate(second, 0), "a rotation that ends the old key at once needs no free slot"


def test_key_endpoints_cover_the_life_of_a_key(collector: Collector) -> None:
    owner = customer(collector)
    first = key(collector, owner["id"], name="server", scopes=["read"], limits=[{"rate": "5/s"}])
    assert re.fullmatch(REGEX, first["secret"])
    assert not is_miswritten(first["secret"].encode())
    assert first["secret"].startswith(first["start"])
    assert key(collector, owner["id"], prefix="edgetest")["secret"].startswith("edgetest_v1_")
    path = f"/v1/keys/{first['id']}"
    assert "secret" not in collector.get(path).json()
    rotated = made(collector.send("POST", f"{path}/rotate", {"overlap": "7d"}))
    assert (rotated["replaces"], rotated["scopes"], rotated["limits"]) == (
        first["id"], ["read"], first["limits"],
    )  # fmt: skip
    old = collector.get(path).json()
    assert (old["state"], old["rotated_to"]) == ("rotating", rotated["id"])
    assert collector.send("POST", f"{path}/rotate", {}).status == 409
    assert collector.send("PATCH", path, {"expires_at": None}).status == 409
    at_once = made(collector.send("POST", f"/v1/keys/{rotated['id']}/rotate", {"overlap": "0s"}))
    assert collector.get(f"/v1/keys/{rotated['id']}").json()["state"] == "revoked"
    assert made(collector.send("DELETE", path), 200)["state"] == "revoked"
    assert made(collector.send("DELETE", path), 200)["state"] == "revoked"
    listed = collector.get(f"/v1/customers/{owner['name']}/keys").json()["keys"]
    assert [key["state"] for key in listed] == ["revoked", "active", "revoked", "active"]
    assert listed[3]["id"] == at_once["id"]
    assert [action for action, _, _ in record(collector, f"{owner['name']}/{first['id']}")] == [
        "key.create", "key.rotate", "key.revoke",
    ]  # fmt: skip
    assert first["secret"] not in repr(collector.get("/v1/audit", token=ADMIN, limit="1000").json())


def report(collector: Collector, body: object, source: str = "127.0.3.1") -> Answer:
    """Report leaked keys without authentication, from a source address of the test."""
    return ask(collector.port, "/v1/keys/leaked", method="POST", body=orjson.dumps(body), source=source)


def states_of(collector: Collector, owner: dict[str, Any]) -> list[str]:
    return [key["state"] for key in collector.get(f"/v1/customers/{owner['id']}/keys").json()["keys"]]


def test_leak_report_revokes_the_key_and_does_not_disclose_it(collector: Collector) -> None:
    owner = customer(collector)
    mine, *others = (key(collector, owner["id"]) for _ in range(3))
    before = collector.metric("collector_leaked_keys_total")
    bodies = (
        {"key": mine["secret"]},
        {"key": "nobody-has-it"},
        {"keys": ["nor", *(other["secret"] for other in others)]},
    )
    answers = [report(collector, body) for body in bodies]
    assert {(answer.status, answer.body) for answer in answers} == {(202, b'{"received":true}')}
    assert states_of(collector, owner) == ["revoked"] * 3
    assert collector.metric("collector_leaked_keys_total") == before + 3
    assert record(collector, f"{owner['name']}/{mine['id']}")[1][2]["why"] == "leaked"
    for body in (
        {},
        {"keys": []},
        {"keys": ["k"] * 101},
        {"keys": [mine["secret"], 1]},
        {"key": mine["secret"] + "\n"},
        {"key": " " + mine["secret"]},
        {"keys": [mine["secret"] + " "]},
    ):
        assert report(collector, body).status == 422, body
    assert mine["secret"] not in collector.output


def test_leak_report_by_hash_revokes_no_key(collector: Collector) -> None:
    owner = customer(collector)
    digest = hashlib.sha256(key(collector, owner["id"])["secret"].encode()).hexdigest()
    answer = report(collector, {"sha256": digest}, "127.0.3.2")
    assert (answer.status, "a sha256 proves nothing" in answer.body.decode()) == (422, True)
    for body in ({"key": digest}, {"keys": [digest, f"sha256:{digest}"]}):
        assert report(collector, body, "127.0.3.2").status == 202
    assert states_of(collector, owner) == ["active"]


def test_leak_report_rate_limit_counts_each_address_separately(collector: Collector) -> None:
    owner = customer(collector)
    mine = key(collector, owner["id"])
    statuses = [report(collector, {"key": "guessed"}, "127.0.3.3").status for _ in range(11)]
    assert statuses == [202] * 10 + [429]
    assert report(collector, {"key": mine["secret"]}, "127.0.3.3").status == 429
    assert states_of(collector, owner) == ["active"]
    assert report(collector, {"key": mine["secret"]}, "127.0.3.4").status == 202
    assert states_of(collector, owner) == ["revoked"]


def test_leaked_key_can_be_restored_for_a_day_unless_otherwise_ended(collector: Collector) -> None:
    owner = customer(collector)
    path = f"/v1/customers/{owner['id']}"
    leaked, ended = (key(collector, owner["id"], expires_at="2099-01-01") for _ in range(2))
    rotated, replaced, old, expired = (key(collector, owner["id"]) for _ in range(4))
    successor = made(collector.send("POST", f"/v1/keys/{rotated['id']}/rotate", {"overlap": "1d"}))
    made(collector.send("POST", f"/v1/keys/{replaced['id']}/rotate", {"overlap": "0s"}))
    assert report(collector, {"keys": [leaked["secret"], rotated["secret"]]}, "127.0.3.5").status == 202
    for one in (ended, old, expired):
        made(collector.send("DELETE", f"/v1/keys/{one['id']}"), 200)
    age(collector, old["id"], revoked_at=now_ms() - 86_400_000)
    age(collector, expired["id"], expires_at=now_ms())

    def restore(one: dict[str, Any], token: str = ADMIN) -> Answer:
        return collector.send("POST", f"/v1/keys/{one['id']}/restore", token=token)

    def key_lines() -> set[bytes]:
        """Return the SHA-256 digests of the keys that the collector sends to edges."""
        line = in_database(collector, lambda connection: documents.fetch_line(connection, owner["name"]))
        return set(parse_document(line).keys)

    digests = [hashlib.sha256(one["secret"].encode()).digest() for one in (leaked, ended, rotated, successor)]
    assert not key_lines() & set(digests[:3])
    own = made(collector.send("POST", "/v1/tokens", {"name": name(), "customer": owner["name"]}))["secret"]
    support = made(collector.send("POST", "/v1/tokens", {"name": name(), "role": "support"}))["secret"]
    admin = made(collector.send("POST", "/v1/tokens", {"name": name(), "role": "admin"}))["secret"]
    assert [restore(leaked, token).status for token in (own, support, admin)] == [403, 403, 403]
    assert [restore(one).status for one in (replaced, old, expired, successor)] == [409] * 4
    back = [made(restore(one), 200) for one in (leaked, ended, rotated)]
    assert [(one["state"], one["revoked_at"], one["restorable_until"]) for one in back] == [
        ("active", None, None), ("active", None, None), ("rotating", None, None),
    ]  # fmt: skip
    assert back[0] == {name: value for name, value in leaked.items() if name != "secret"}
    assert back[2]["rotated_to"] == successor["id"]
    assert set(digests) <= key_lines()
    (entry,) = [one for one in record(collector, f"{owner['name']}/{leaked['id']}") if one[0] == "key.restore"]
    assert (entry[1]["state"], entry[2]["state"]) == ("revoked", "active")
    assert restore(leaked).status == 409, "the key is no longer revoked"
    assert report(collector, {"key": leaked["secret"]}, "127.0.3.5").status == 202
    made(collector.send("DELETE", path), 202)
    assert restore(leaked).status == 409, "its customer is being deleted"
    assert erased(collector) == [owner["name"]]
    assert restore(leaked).status == 404


def age(collector: Collector, key_id: str, **times: int) -> None:
    """Set a key's times to these Unix milliseconds."""
    changed = sa.update(keys_table).where(keys_table.c.id == key_id).values(**times)
    in_database(collector, lambda connection: connection.execute(changed))


def test_repeated_request_creates_nothing_new(collector: Collector) -> None:
    owner = customer(collector)
    path = f"/v1/customers/{owner['id']}/keys"
    tag = f"k-{next(NUMBERS)}-{owner['id']}"
    one, two = (collector.send("POST", path, {"name": "a"}, Idempotency_Key=tag) for _ in range(2))
    assert one.status == two.status == 201
    assert one.json() == two.json()
    assert two["idempotent-replayed"] == "true"
    assert len(collector.get(path).json()["keys"]) == 1
    assert collector.send("POST", path, {"name": "b"}, Idempotency_Key=tag).status == 422
    assert collector.send("POST", path, {"name": "a"}, Idempotency_Key="a b").status == 400


def test_a_dry_run_changes_nothing(collector: Collector) -> None:
    there = {"name": name(), "tier": "basic"}
    shown = made(collector.send("POST", "/v1/customers?dry_run=true", there), 200)
    assert shown["name"] == there["name"]
    assert collector.get(f"/v1/customers/{there['name']}").status == 404
    assert record(collector, there["name"]) == []
    owner = customer(collector)
    assert "secret" not in made(collector.send("POST", f"/v1/customers/{owner['id']}/keys?dry_run=true", {}), 200)
    assert collector.get(f"/v1/customers/{owner['id']}/keys").json() == {"keys": []}
    assert collector.send("POST", "/v1/customers?dry_run=1", there).status == 400


def test_lists_are_pages(collector: Collector) -> None:
    tag = name()
    ids = [customer(collector, name=f"{tag}-{n}", external_id=f"{tag}-{n}")["id"] for n in range(5)]
    found: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = collector.get("/v1/customers", limit="2", **cursor).json()
        found += [customer["id"] for customer in page["customers"]]
        if "next" not in page:
            break
        cursor = {"cursor": page["next"]}
    assert [one for one in found if one in ids] == ids
    assert len(found) == len(set(found))
    only = collector.get("/v1/customers", external_id=f"{tag}-3").json()["customers"]
    assert [customer["id"] for customer in only] == [ids[3]]
    for wrong in ({"limit": "0"}, {"limit": "1001"}, {"cursor": "x"}, {"teir": "x"}):
        assert collector.get("/v1/customers", **wrong).status == 400


def test_flag_endpoints_create_update_and_delete_flags(collector: Collector) -> None:
    path = f"/v1/flags/{name()}"
    assert collector.get(path).status == 404
    flag = made(collector.send("PUT", path, {"percent": 10, "customers": ["acme"]}), 200)
    assert (flag["percent"], flag["customers"], flag["tiers"]) == (10, ["acme"], [])
    assert made(collector.send("PUT", path, {"percent": 20}, If_Match='"1"'), 200)["customers"] == []
    assert collector.send("PUT", path, {"percent": 30}, If_Match='"1"').status == 412
    assert collector.send("PUT", path, {"percent": 101}).status == 422
    assert flag["name"] in [flag["name"] for flag in collector.get("/v1/flags").json()["flags"]]
    assert [action for action, _, _ in record(collector, flag["name"])] == ["flag.put", "flag.put"]


@only_sqlite("collector")
def test_customer_token_manages_its_own_keys(collector: Collector) -> None:
    if collector.get("/v1/customers/bound", token=OWN).status == 404:
        customer(collector, name="bound")
    own, other = collector.get("/v1/customers/bound", token=OWN).json(), customer(collector)
    assert [customer["name"] for customer in collector.get("/v1/customers", token=OWN).json()["customers"]] == ["bound"]
    mine = made(collector.send("POST", f"/v1/customers/{own['id']}/keys", {}, token=OWN))
    assert made(collector.send("POST", f"/v1/keys/{mine['id']}/rotate", {"overlap": "0s"}, token=OWN))["secret"]
    scoped = collector.send("POST", f"/v1/customers/{own['id']}/keys", {"scopes": ["root"]}, token=OWN)
    assert scoped.status == 403
    assert other["id"] not in repr(collector.get("/v1/customers", token=OWN).json())


@only_sqlite("collector")
def test_customer_token_creates_no_key_wider_than_its_admin_keys(collector: Collector) -> None:
    of = name()
    made(collector.send("POST", "/v1/customers", {"name": of, "tier": "basic"}))
    own = made(collector.send("POST", "/v1/tokens", {"name": f"of-{of}", "customer": of}))["secret"]

    def tries(method: str, path: str, **said: Any) -> Answer:
        return collector.send(method, path, said, token=own)

    limits, end = [{"rate": "5/s"}, {"rate": "100/min"}], "2090-01-01T00:00:00Z"
    budget = {"amount": 10, "per": "day", "meter": "keyed"}
    first = key(collector, of, limits=limits, expires_at=end, scopes=["read"], budget=budget)
    path, keys = f"/v1/keys/{first['id']}", f"/v1/customers/{of}/keys"
    wider = [
        {"limits": None},
        {"limits": []},
        {"limits": limits[:1]},
        {"limits": [{"rate": "6/s"}, limits[1]]},
        {"limits": [{"rate": "5/s", "mode": "shadow"}, limits[1]]},
        {"limits": [{"rate": "5/s", "cost_header": "X-Cost"}, limits[1]]},
        {"expires_at": None},
        {"expires_at": "2091-01-01T00:00:00Z"},
        {"scopes": ["read", "write"]},
        {"budget": None},
        {"budget": {**budget, "amount": 11}},
        {"budget": {**budget, "per": "month"}},
    ]
    for said in wider:
        assert tries("PATCH", path, **said).status == 403, said
        whole = {"limits": limits, "expires_at": end, "scopes": ["read"], "budget": budget, **said}
        assert tries("POST", keys, **whole).status == 403, said
    assert collector.get(path, token=own)["etag"] == '"1"', "nothing has changed"
    narrower = {
        "name": "mine",
        "budget": {**budget, "amount": 9},
        "limits": [{"rate": "100/min"}, {"rate": "4/s"}, {"rate": "9/h"}],
        "scopes": None,
    }
    assert made(tries("POST", keys, **narrower, expires_at=end))["limits"]
    assert made(tries("PATCH", path, **narrower, expires_at="2089-01-01T00:00:00Z"), 200)["name"] == "mine"
    rotated = made(tries("POST", f"{path}/rotate", overlap="0s"))
    before = collector.get(path).json()
    assert [rotated[what] for what in ("limits", "expires_at")] == [before["limits"], "2089-01-01T00:00:00.000Z"]
    for one in collector.get(keys).json()["keys"]:
        assert tries("DELETE", f"/v1/keys/{one['id']}").status == 200
    assert tries("POST", keys).status == 403, "to revoke them lifts nothing"
    assert made(collector.send("POST", keys, {}))["limits"] is None
    assert made(tries("POST", keys))["expires_at"] is None, "an admin made one without an end"


@only_sqlite("collector")
def test_customer_token_is_refused_on_each_path_of_another_customer(collector: Collector) -> None:
    other = customer(collector)
    theirs = key(collector, other["id"])
    nobody = "00000000-0000-7000-8000-000000000000"
    known = {
        "customer": [other["id"], other["name"], "nobody", nobody],
        "key": [theirs["id"], nobody],
        "invoice": [nobody],
    }
    paths = collector.get("/v1/openapi.json", token=None).json()["paths"]
    tried = []
    for path, operations in paths.items():
        named = re.findall(r"{(\w+)}", path)
        for method, operation in operations.items():
            if "security" not in operation or ("customer" in operation["x-roles"] and not known.keys() & named):
                continue  # For everyone, or limited to the customer by the handler. Other tests cover these.
            for refs in itertools.product(*(known.get(one, ["x"]) for one in named)):
                url = path
                for one, ref in zip(named, refs, strict=True):
                    url = url.replace(f"{{{one}}}", ref)
                answer = collector.send(method.upper(), url, None if method == "get" else {}, token=OWN)
                assert answer.status == 403, (method, url, answer)
                tried.append(url)
    assert f"/v1/keys/{theirs['id']}/rotate" in tried
    assert f"/v1/customers/{other['name']}/keys" in tried
    assert collector.get(f"/v1/keys/{theirs['id']}").json()["state"] == "active"


@pytest.mark.parametrize(("token", "status"), [(None, 401), ("x", 401), (EDGE, 403), (SERVICE, 403), (READ, 403)])
def test_tokens_without_the_role_change_nothing(sqlite_collector: Collector, token: str | None, status: int) -> None:
    paths = sqlite_collector.get("/v1/openapi.json", token=None).json()["paths"]
    tried = 0
    for path, operations in paths.items():
        for method, operation in operations.items():
            # Edges and services may call these operations.
            own = path in ("/v1/batches", "/v1/events", "/v1/limit-usage", "/v1/traffic") or "/holdings/" in path
            if method == "get" or "security" not in operation or own:
                continue
            answer = sqlite_collector.send(method.upper(), re.sub(r"{\w+}", "x", path), {}, token=token)
            assert answer.status == status, (method, path, answer)
            tried += 1
    assert tried >= 10


def test_batches_set_the_last_used_day_of_a_key(collector: Collector) -> None:
    owner = customer(collector)
    mine, other = (key(collector, owner["id"]) for _ in range(2))
    used = KeysUsed()
    used.record([hashlib.sha256(mine["secret"].encode()).digest(), b"x" * 32], time.time())
    assert collector.post(Chain().next(), fields=used.format_fields()).status == 200
    path = f"/v1/keys/{mine['id']}"
    until(lambda: collector.get(path).json()["last_used_on"] is not None, "the day is written")
    assert collector.get(path).json()["last_used_on"] == time.strftime("%Y-%m-%d", time.gmtime())
    assert collector.get(f"/v1/keys/{other['id']}").json()["last_used_on"] is None
    assert collector.post(Chain().next(), fields={FIELD: "odd"}).status == 200


def test_customer_directory_follows_each_change(collector: Collector) -> None:
    owner = customer(collector, paused={"why": "soon"})
    mine = key(collector, owner["id"], scopes=["b", "a"], limits=[{"rate": "5/s"}])
    gone = key(collector, owner["id"])
    collector.send("DELETE", f"/v1/keys/{gone['id']}")

    async def look() -> tuple[bytes, list[tuple[str, bytes]]]:
        database = await Database.connect(collector.settings["database"], as_it_is=True)
        try:
            async with database.reading() as connection:
                every = [line async for line in documents.stream_lines(connection)]
                return await documents.fetch_line(connection, owner["name"]), every
        finally:
            await database.close()

    line, every = asyncio.run(look())
    collector.send("DELETE", f"/v1/customers/{owner['id']}")
    last, all_last = asyncio.run(look())
    after = parse_document(last)
    said = parse_document(line)
    digest = hashlib.sha256(mine["secret"].encode()).digest()
    assert (said.name, said.tier, [*said.keys]) == (owner["name"], "basic", [digest])
    assert '"scopes":["a","b"]' in said.keys[digest]
    assert (owner["name"], line) in every
    assert (after.customer is None, after.tier, after.keys) == (False, "basic", {})
    assert parse_customer(after.customer or "", 0.0).paused == documents.DELETED, (
        "a customer without a key name is refused too"
    )
    assert (owner["name"], last) in all_last


@only_sqlite("collector")
def test_only_a_second_factor_ends_a_pause_for_unusual_usage(collector: Collector) -> None:
    of, helper = customer(collector)["name"], f"helper-{next(NUMBERS)}"
    token = made(collector.send("POST", "/v1/tokens", {"name": helper, "role": "support"}))["secret"]
    path = f"/v1/customers/{of}"

    def paused(why: str | None, token: str) -> int:
        said = {"paused": None if why is None else {"why": why}}
        return collector.send("PATCH", path, said, token=token).status

    assert [paused("they asked for it", token), paused(None, token)] == [200, 200]
    assert paused(WHY_PAUSED, token) == 200
    # Support can neither end this pause nor replace its reason.
    assert [paused(None, token), paused("they asked for it", token)] == [403, 403]
    assert made(collector.get(path, token=ADMIN), 200)["state"] == "paused"
    assert paused(None, ADMIN) == 200, "its token may do what is sensitive"
