"""The reason of each refusal: a sentence, fields and members that are about the limit that refused."""

import json
import re
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from edgeproxy.config.refusal_terms import QuotaKind
from edgeproxy.edge.counters import columns
from edgeproxy.edge.counters import layout as at
from edgeproxy.edge.counters.layout import Layout
from edgeproxy.edge.counters.rows import LimitTable
from edgeproxy.edge.limits.policies import Policies
from edgeproxy.edge.limits.refusal import StatedLimit, describe_refusal
from tests.edge.proxy.asking import asks
from tests.support.http2_wire import http2
from tests.support.tables import close_all, make, opened
from tests.support.transcript import KEY, Edge, ok, post
from tests.support.wire import Message

MOMENT = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"
REQUESTS_DAY = {"meter": "requests", "per": "day", "included": 1, "cap": "hard"}
REFUSALS: dict[str, tuple[dict[str, Any], str, str, str | None, str]] = {
    "rate": (
        {"limits": [{"rate": "1/min"}]},
        r"The rate limit is reached \(basic: 1 of 1 in 60 s\); try again in \d+ s",
        '"basic";q=1;w=60',
        r'"basic";r=0;t=\d+',
        "wait",
    ),
    "concurrency": (
        {"concurrency": 1},
        r"Too many requests at once \(concurrency: 1 of 1 under way\); try again when one has ended",
        '"concurrency";q=1;qu="concurrent-requests"',
        '"concurrency";r=0',
        "wait",
    ),
    "quota": (
        {"limits": [{"rate": "100/min"}], "quotas": [REQUESTS_DAY]},
        rf"The quota is used up \(requests-day: 1 of 1\); wait until {MOMENT}",
        '"requests-day";q=1;w=86400',
        r'"requests-day";r=0;t=\d+',
        "wait",
    ),
    "cap of a day": (
        {"limits": [{"rate": "100/min"}], "caps": {"day": 500}},
        rf"The spending cap is reached \(cost-day: 600 of 500\); wait until {MOMENT}",
        '"cost-day";q=500;w=86400',
        r'"cost-day";r=0;t=\d+',
        "wait",
    ),
    "cap of a session": (
        {"limits": [{"rate": "100/min"}], "caps": {"session": "600/60min"}},
        r"The spending cap is reached \(session: 600 of 600 in 3600 s\); try again in \d+ s",
        '"session";q=600;w=3600',
        r'"session";r=0;t=\d+',
        "wait",
    ),
    "cap of a request": (
        {"limits": [{"rate": "100/min"}], "caps": {"request": 4}},
        "Such a request counts for 5, and request never lets more than 4 pass",
        '"request";q=4',
        None,
        "change_request",
    ),
}
"""By limit: the settings of a tier, the first sentence, RateLimit-Policy, RateLimit, and the remedy."""


def check(answer: Message, limit: str) -> None:
    """Hold an answer to the row of the limit."""
    _, sentence, policy, left, remedy = REFUSALS[limit]
    problem = json.loads(answer.body)
    name, kind = policy.split('"')[1], limit.split()[0]
    assert answer.status == problem["status"] == 429
    stated, _, message = problem["detail"].partition(f". Ask {kind}")
    assert re.fullmatch(sentence, stated), stated
    assert not message
    assert problem["detail"].endswith(f". Ask {kind}"), "the message of its kind"
    assert (answer["RateLimit-Policy"], problem["violated-policies"]) == (policy, [name])
    assert ("RateLimit" in answer) == (left is not None)
    assert left is None or re.fullmatch(left, answer["RateLimit"])
    member = problem["limit"]
    assert (member["name"], member["kind"], member["remedy"]) == (name, kind, remedy)
    assert (f"{member['used']} of {member['allowed']}" in stated) == (limit != "cap of a request")
    assert ("Retry-After" in answer) == (remedy == "wait")
    if "ends_at" in member:
        wait = datetime.fromisoformat(member["ends_at"]) - parsedate_to_datetime(answer["Date"])
        assert wait.total_seconds() == pytest.approx(int(answer["Retry-After"]), abs=3)
        assert member["ends_at"] in stated or f"in {answer['Retry-After']} s" in stated


@pytest.mark.parametrize("limit", REFUSALS)
async def test_a_refusal_is_about_the_limit_that_refused_over_both_protocols(edge: Edge, limit: str) -> None:
    kinds = ("rate", "concurrency", "quota", "cap")
    edge.config["listen"] = {"address": "127.0.0.1:0", "http2": True}
    edge.config["meters"] = {
        "requests": {"count": "requests"},
        "cost": {"count": "response_header", "header": "X-Cost"},
    }
    edge.config["tiers"]["basic"] = {**REFUSALS[limit][0], "message": {kind: f"Ask {kind}" for kind in kinds}}
    if limit == "cap of a request":
        edge.config["routes"][0]["cost"] = 5
    edge.upstream.answers(lambda _: ok(b"", "X-Cost: 600"))
    client, newer = await edge.client(), await http2(edge)
    if limit == "concurrency":
        busy = await edge.client()
        await busy.sends(post(b"x", "/v1/a", f"X-API-Key: {KEY}")[:-1])
        await edge.until(edge.in_use)
    elif limit != "cap of a request":
        assert (await asks(client)).status == 200
    check(await asks(client), limit)
    check(await newer.asks("/v1/a", ("x-api-key", KEY)), limit)
    if limit == "concurrency":
        await busy.sends(b"x")
        assert (await busy.gets_answer("POST")).status == 200


async def test_the_limit_with_the_longest_wait_is_stated(answering: Edge) -> None:
    answering.config["tiers"]["basic"] = {"limits": [{"rate": "1/min"}], "quotas": [{**REQUESTS_DAY, "per": "month"}]}
    client = await answering.client()
    assert (await asks(client)).status == 200
    answering.passes_time(0.01)
    answer = await asks(client)
    problem = json.loads(answer.body)
    assert problem["violated-policies"] == ["basic", "requests-month"]
    longest = "requests-month" if int(answer["Retry-After"]) > 61 else "basic"  # But in the last minute of a month.
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
