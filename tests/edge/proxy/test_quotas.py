"""Calendar quotas: the included usage of a day or a month, usage above it, and requests that do not count."""

from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from edgeproxy.base.clock import EPOCH
from tests.edge.proxy.asking import asked, asks, is_limited
from tests.support.transcript import KEY, Edge, chunks, head, post

WITH_KEY = f"X-API-Key: {KEY}"
DAY = 86_400


def quotas(edge: Edge, *of_tier: dict[str, Any], **besides: Any) -> None:
    """These are the quotas of the tier `basic`."""
    listed = [{"meter": "requests", **each} for each in of_tier]
    edge.config["tiers"]["basic"] = {"limits": [], "quotas": listed, **besides}


@pytest.fixture
def edge(edge: Edge) -> Edge:
    quotas(edge, {"per": "month", "included": 3, "cap": "hard"})
    return edge


async def at(edge: Edge, moment: datetime) -> None:
    """It is now this moment, or a fraction of a second later."""
    await edge.starts()
    edge.passes_time(moment.timestamp() - EPOCH - (edge.now()))


# ---- hard and soft


async def test_hard_quota_refuses_excess_requests_until_the_next_month(answering: Edge) -> None:
    await at(answering, datetime(2027, 4, 29, 12, tzinfo=UTC))
    client = await answering.client()
    for _ in range(3):
        answer = await asks(client)
        assert answer.status == 200
        assert "X-Quota" not in answer
    for _ in range(2):
        answer = await asks(client)
        said = is_limited(answer, "requests-month")
        assert said["detail"] == "The quota is used up (requests-month: 3 of 3); wait until 2027-05-01T00:00:00Z"
        assert int(answer["Retry-After"]) == pytest.approx(1.5 * DAY, abs=5)
        assert answer["RateLimit-Policy"] == f'"requests-month";q=3;w={30 * DAY}'
        assert "X-Quota" not in answer
    assert answering.used() == {"requests-month": 3}
    assert answering.count("edge_rate_limited_total", "basic", "requests-month", "enforce") == 2
    answering.passes_time(int(answer["Retry-After"]) - 10)
    is_limited(await asks(client), "requests-month")
    answering.passes_time(10)
    assert (await asks(client)).status == 200
    assert answering.used() == {"requests-month": 1}


async def test_soft_quota_marks_excess_requests_and_lets_them_pass(answering: Edge) -> None:
    quotas(answering, {"per": "month", "included": 3})
    client = await answering.client()
    for _ in range(3):
        assert "X-Quota" not in await asks(client)
    for _ in range(3):
        answer = await asks(client)
        assert answer.status == 200
        assert answer["X-Quota"] == '"requests-month";over'
    assert answering.used() == {"requests-month": 6}
    assert answering.metrics("edge_rate_limited_total") == {}


# ---- the calendar


async def test_a_day_begins_at_midnight_of_its_time_zone(answering: Edge) -> None:
    zone = ZoneInfo("America/New_York")
    quotas(answering, {"per": "day", "included": 1, "cap": "hard", "timezone": "America/New_York"})
    await at(answering, datetime(2027, 3, 13, 23, 30, tzinfo=zone))
    client = await answering.client()
    assert (await asks(client)).status == 200
    answer = await asks(client)
    assert int(answer["Retry-After"]) == pytest.approx(1800, abs=5)
    answering.passes_time(int(answer["Retry-After"]))
    # The day of the change to summer time has 23 hours there.
    assert (await asks(client)).status == 200
    answer = await asks(client)
    assert int(answer["Retry-After"]) == pytest.approx(23 * 3600, abs=5)
    answering.passes_time(int(answer["Retry-After"]))
    assert (await asks(client)).status == 200


# ---- what does not count


@pytest.mark.parametrize(
    ("when", "counted"),
    [
        ("answered", {200: 1, 304: 1, 404: 1, 429: 1, 500: 0, 503: 0}),
        ("success", {200: 1, 304: 1, 404: 0, 429: 0, 500: 0, 503: 0}),
        ("admitted", {200: 1, 304: 1, 404: 1, 429: 1, 500: 1, 503: 1}),
    ],
)
@pytest.mark.parametrize("framing", ["Content-Length: 0", "Transfer-Encoding: chunked"])
async def test_quota_refunds_answers_that_its_meter_does_not_count(
    edge: Edge, when: str, counted: dict[int, int], framing: str
) -> None:
    edge.config["meters"] = {"requests": {"count": "requests", "when": when}}
    quotas(edge, {"per": "day", "included": 100, "cap": "hard"})
    total = 0
    for status, counts in counted.items():
        client, upstream = await asked(edge)
        assert edge.used() == {"requests-day": total + 1}, "under way, it is counted"
        body = chunks() if "chunked" in framing and status != 304 else b""
        await upstream.tells(client, head(f"HTTP/1.1 {status} X", framing) + body)
        total += counts
        await edge.until(lambda total=total: edge.used() == {"requests-day": total})
        client.closes()
        upstream.closes()
    assert edge.usage() == {("acme", "requests", "v1"): total}, "as it is billed"


@pytest.mark.parametrize(("when", "counts"), [("answered", 0), ("success", 0), ("admitted", 1)])
async def test_quota_refunds_unanswered_requests_by_the_meters_condition(edge: Edge, when: str, counts: int) -> None:
    edge.config["meters"] = {"requests": {"count": "requests", "when": when}}
    quotas(edge, {"per": "day", "included": 100, "cap": "hard"})
    client, upstream = await asked(edge, post(b"", "/v1/x", WITH_KEY))
    upstream.closes()
    assert (await client.gets_answer()).status == 502
    assert edge.used() == {"requests-day": counts}
    client, upstream = await asked(edge)
    client.aborts()
    await upstream.gets_cut()
    await edge.until(lambda: edge.used() == {"requests-day": 2 * counts})
    edge.upstream.refuses()
    client = await edge.client()
    assert (await asks(client)).status == 502
    assert edge.used() == {"requests-day": 3 * counts}


async def test_a_broken_answer_counts_as_it_began(edge: Edge) -> None:
    client, upstream = await asked(edge)
    await upstream.sends(head("HTTP/1.1 200 OK", "Content-Length: 100"), b"begun")
    await client.gets_until(b"begun")
    upstream.closes()
    await client.gets_reset()
    assert edge.used() == {"requests-month": 1}


# ---- other configurations


async def test_quota_usage_survives_changes_of_its_number_and_cap(answering: Edge) -> None:
    client = await answering.client()
    for _ in range(3):
        await asks(client)
    quotas(answering, {"per": "month", "included": 5, "cap": "hard"})
    await answering.reloads()
    assert [(await asks(client)).status for _ in range(3)] == [200, 200, 429]
    quotas(answering, {"per": "month", "included": 2})
    await answering.reloads()
    assert (await asks(client))["X-Quota"] == '"requests-month";over'
    assert answering.used() == {"requests-month": 6}
    quotas(answering)
    await answering.reloads()
    assert "X-Quota" not in await asks(client)
    quotas(answering, {"per": "month", "included": 6, "cap": "hard"})
    await answering.reloads()
    is_limited(await asks(client), "requests-month")
