"""The reason of each refusal: its sentence, fields and members describe the limit that refused."""

import itertools
import json
import re
from collections.abc import Awaitable, Callable
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import pytest

from edgeproxy.config.directory import KeyOwner
from edgeproxy.config.refusal_terms import TERMS, QuotaKind
from edgeproxy.edge.counters import columns
from edgeproxy.edge.counters import layout as at
from edgeproxy.edge.counters.layout import Layout
from edgeproxy.edge.counters.rows import LimitTable
from edgeproxy.edge.limits.policies import Policies
from edgeproxy.edge.limits.refusal import StatedLimit, describe_refusal
from edgeproxy.edge.messages import KeysLookedUp
from loadtest.testbed.process import ROOT
from tests.edge.proxy.asking import asks
from tests.support.http2_wire import http2
from tests.support.tables import close_all, make, opened
from tests.support.transcript import Edge, digest, head, ok, post
from tests.support.wire import Message

REQUESTS_DAY = {"meter": "requests", "per": "day", "included": 1, "cap": "hard"}
RATE = {"limits": [{"rate": "100/min"}]}
PLAN = {"meter": "requests", "per": "month", "included": 1, "cap": "hard"}
CREDITS = {"meter": "cost", "per": "ever@1", "included": 600, "cap": "hard"}
BUDGET = {"meter": "requests", "per": "day", "included": 1, "id": "0" * 36}
SETTINGS: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "rate": ({"limits": [{"rate": "1/min"}]}, {}, {}),
    "concurrency": ({"concurrency": 1}, {}, {}),
    "quota": ({**RATE, "quotas": [REQUESTS_DAY]}, {}, {}),
    "plan": (RATE, {"entitled": [PLAN]}, {}),
    "cap of a day": ({**RATE, "caps": {"day": 500}}, {}, {}),
    "cap of a session": ({**RATE, "caps": {"session": "600/60min"}}, {}, {}),
    "cap of a request": ({**RATE, "caps": {"request": 4}}, {}, {}),
    "budget": (RATE, {}, {"budget": {**BUDGET, "why": "The budget of the API key ek_12 for the day is used up"}}),
    "credits": (RATE, {"entitled": [CREDITS]}, {}),
}
"""By refusal: the settings of a tier, of a customer in the directory, and of its key."""
KINDS = ("rate", "concurrency", "quota", "plan", "cap", "budget", "credits")
WAYS = ("HTTP/1.1", "HTTP/2", "authorize")
MINE = "key-of-dora"
PROXY = "127.0.0.3"
SLACK_SECONDS = 3.0
"""Retry-After is rounded up by a second, and the machine may stall."""


class Row(NamedTuple):
    """A row of the table of refusals in docs/limits/limits.md."""

    status: int
    sentence: str
    fields: str
    retry_after: str
    remedy: str
    ends_at: str


def read_table() -> dict[str, Row]:
    """Return the rows by refusal: the kind, with the words beside it."""
    table = (ROOT / "docs" / "limits" / "limits.md").read_text().partition("\n| `kind` | status |")[2]
    lines = itertools.takewhile(lambda line: line.startswith("|"), table.splitlines()[2:])
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {
        row[0].replace("`", ""): Row(int(row[1]), row[2], row[3], row[4], row[5].strip("`"), row[6]) for row in cells
    }


TABLE = read_table()


def build_pattern(example: str) -> str:
    """Return a pattern of texts that differ from an example only in their numbers and at its ellipsis."""
    return re.sub(r"\d+", r"\\d+", re.escape(example)).replace("…", ".+")


def check(answer: Message, refusal: str, passed: float = 0.0) -> None:
    """Check an answer against its row of the table. `passed`: the seconds that edge time is ahead of the date."""
    row, kind, problem = TABLE[refusal], refusal.split()[0], json.loads(answer.body)
    assert answer.status == problem["status"] == row.status
    stated, _, message = problem["detail"].partition(f". Ask {kind}")
    assert re.fullmatch(build_pattern(row.sentence), stated), stated
    assert not message
    assert problem["detail"].endswith(f". Ask {kind}"), "the message of its kind"
    member = problem["limit"]
    (name,) = problem["violated-policies"]
    assert (member["name"], member["kind"], member["remedy"]) == (name, kind, row.remedy)
    assert (f"({name}: {member['used']} of {member['allowed']}" in stated) == (refusal != "cap of a request")
    policy, left = (None if cell == "none" else build_pattern(cell.strip("`")) for cell in row.fields.split(", "))
    assert policy is not None
    assert re.fullmatch(f'"{name}";{policy}', answer["RateLimit-Policy"]), answer["RateLimit-Policy"]
    assert ("RateLimit" in answer) == (left is not None)
    assert left is None or re.fullmatch(f'"{name}";{left}', answer["RateLimit"]), answer["RateLimit"]
    assert ("Retry-After" in answer) == (row.retry_after != "none")
    assert ("ends_at" in member) == (row.ends_at == "yes")
    if "ends_at" in member:
        wait = datetime.fromisoformat(member["ends_at"]) - parsedate_to_datetime(answer["Date"])
        assert wait.total_seconds() - passed == pytest.approx(int(answer["Retry-After"]), abs=SLACK_SECONDS)
        assert member["ends_at"] in stated or f"in {answer['Retry-After']} s" in stated


def test_the_table_has_each_refusal_and_402_is_for_payments_alone() -> None:
    assert TABLE.keys() == SETTINGS.keys()
    assert {refusal.split()[0] for refusal in TABLE} == set(KINDS) == TERMS.keys() - {"account", "key"}
    for refusal, row in TABLE.items():
        terms = TERMS[refusal.split()[0]]  # type: ignore[index]
        assert row.status == terms.status == (402 if row.remedy in ("top_up", "pay") else 429)
        assert row.remedy in (terms.remedy, "change_request")
        assert (row.retry_after == "none") == (row.remedy in ("change_request", "top_up")), "only a wait has a time"


def configure(edge: Edge, refusal: str) -> None:
    """Give the edge a customer in the directory whose requests end in this refusal."""
    edge.config["listen"] = {"address": "127.0.0.1:0", "http2": True}
    edge.config["trusted_proxies"] = [PROXY]
    edge.config["usage"] = {"collector": "http://127.0.0.1:9", "token": "secret-of-edge"}
    edge.config["directory"] = {"from": "collector", "trust": f"ed25519:{'A' * 43}="}
    edge.config["meters"] = {
        "requests": {"count": "requests"},
        "cost": {"count": "response_header", "header": "X-Cost"},
    }
    message = {kind: f"Ask {kind}" for kind in KINDS}
    edge.config["tiers"]["basic"] = {**SETTINGS[refusal][0], "message": message}
    if refusal == "cap of a request":
        edge.config["routes"][0]["cost"] = 5
    edge.upstream.answers(lambda _: ok(b"", "X-Cost: 600"))


def add_owner(edge: Edge, refusal: str) -> None:
    """Tell the worker the owner of the key, as its supervisor does."""
    _, customer, key = SETTINGS[refusal]
    owner = KeyOwner("dora", json.dumps({"tier": "basic", **customer}), json.dumps(key))
    edge.runtime.key_lookup.on_answer(KeysLookedUp({bytes.fromhex(digest(MINE)): owner}, [], []))


Ask = Callable[[], Awaitable[Message]]


async def connect(edge: Edge, way: str) -> Ask:
    """Connect a client that sends requests in this way, or a proxy that asks about them."""
    if way == "HTTP/2":
        newer = await http2(edge)
        return lambda: newer.asks("/v1/a", ("x-api-key", MINE))
    if way == "HTTP/1.1":
        client = await edge.client()
        return lambda: asks(client, "/v1/a", key=MINE)
    await edge.listens_for_questions()
    proxy = await edge.client(PROXY)
    fields = ("X-Original-Method: GET", "X-Original-URI: /v1/a", "X-Forwarded-For: 127.0.0.1", f"X-API-Key: {MINE}")
    return lambda: proxy.asks(head("GET /v1/authorize HTTP/1.1", "Host: edge.test", *fields))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("refusal", SETTINGS)
async def test_each_refusal_has_the_fields_of_the_table_and_ends_when_it_says(
    edge: Edge, refusal: str, way: str
) -> None:
    configure(edge, refusal)
    client = await edge.client()
    add_owner(edge, refusal)
    if refusal == "concurrency":
        busy = await edge.client()
        await busy.sends(post(b"x", "/v1/a", f"X-API-Key: {MINE}")[:-1])
        await edge.until(edge.in_use)
    elif refusal != "cap of a request":
        assert (await asks(client, "/v1/a", key=MINE)).status == 200
    ask = await connect(edge, way)
    refused = await ask()
    check(refused, refusal)
    if refusal == "concurrency":
        await busy.sends(b"x")
        assert (await busy.gets_answer("POST")).status == 200
    elif "Retry-After" not in refused:
        edge.passes_time(400 * 86400.0)
        check(await ask(), refusal)
        return
    else:
        passed = int(refused["Retry-After"]) - SLACK_SECONDS
        edge.passes_time(passed)
        check(await ask(), refusal, passed)
        edge.passes_time(SLACK_SECONDS)
    assert (await ask()).status == 200


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("status", [402, 403])
async def test_pause_answers_402_only_if_a_payment_ends_it(edge: Edge, way: str, status: int) -> None:
    edge.config["customers"]["acme"]["paused"] = {"why": "The invoice of May is unpaid", "status": status}
    configure(edge, "rate")
    edge.config["keys"].append({"sha256": digest(MINE), "customer": "acme"})
    del edge.config["directory"], edge.config["usage"]
    await edge.client()
    refused = await (await connect(edge, way))()
    problem = json.loads(refused.body)
    assert (refused.status, problem["detail"]) == (status, "The invoice of May is unpaid")
    assert not any(name in refused for name in ("Retry-After", "RateLimit", "RateLimit-Policy"))


async def test_the_limit_with_the_longest_wait_is_stated(answering: Edge) -> None:
    answering.config["tiers"]["basic"] = {"limits": [{"rate": "1/min"}], "quotas": [{**REQUESTS_DAY, "per": "month"}]}
    client = await answering.client()
    assert (await asks(client)).status == 200
    answering.passes_time(0.01)
    answer = await asks(client)
    problem = json.loads(answer.body)
    assert problem["violated-policies"] == ["basic", "requests-month"]
    longest = "requests-month" if int(answer["Retry-After"]) > 61 else "basic"  # Except in the last minute of a month.
    assert problem["limit"]["name"] == longest
    assert answer["RateLimit"].startswith(f'"{longest}";r=0;t=')


@pytest.mark.parametrize(
    ("kind", "why", "sentence", "remedy"),
    [
        (
            "plan",
            None,
            r"The amount that the plan includes is used up \(n: 7 of 5\); upgrade the plan, or .*Z",
            "upgrade",
        ),
        (
            "plan",
            "The grace is over",
            r"The grace is over \(n: 7 of 5\); upgrade the plan, or wait until .*Z",
            "upgrade",
        ),
        ("budget", "A key's budget is used up", r"A key's budget is used up \(n: 7 of 5\); wait until .*Z", "wait"),
        ("credits", None, r"The credits that were paid in advance are spent \(n: 7 of 5\); top up", "top_up"),
    ],
)
def test_refusal_of_a_collectors_quota_states_its_remedy(
    tmp_path: Path, kind: QuotaKind, why: str | None, sentence: str, remedy: str
) -> None:
    layout = Layout("quotas", 5, 8, ring=1, cells=1, width=at.HEAD_WORDS)
    file = opened(make(tmp_path, layout))
    column = columns.acquire_column([file])
    counting, now = Policies(LimitTable(file, column)), 51_000_000.0
    quota = counting.get_quota(
        "n",
        5,
        "day",
        ZoneInfo("UTC"),
        b"a",
        hard=True,
        when="answered",
        why=why,
        is_balance=kind == "credits",
        kind=kind,
    )
    quota.count(7, now)
    refusal = describe_refusal(quota, now, quota.retry_after(now))
    assert re.fullmatch(sentence, refusal.sentence), refusal.sentence
    assert refusal.limit[:5] == StatedLimit("n", kind, 7, 5, remedy)[:5]  # type: ignore[arg-type]
    close_all()
