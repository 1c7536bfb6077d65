"""Usage of the edge by what upstreams say in their answers: which model, which agent."""

from collections.abc import Callable
from typing import Any

import pytest

from edgeproxy.config.meters import Dimension
from edgeproxy.edge.proxy.metering.split import DimensionValues
from tests.edge.body_usage.transcripts import compact
from tests.support.transcript import KEY, Edge, chunks, digest, get, head, ok

MODEL = {"model": {"header": "X-Usage-Model", "values": 2}}
METERS: dict[str, Any] = {
    "requests": {"count": "requests"},
    "runs": {"count": "requests", "dimensions": MODEL},
    "credits": {"count": "cost", "dimensions": MODEL},
    "egress": {"count": "bytes_out", "dimensions": MODEL},
    "tokens": {"count": "response_header", "header": "X-Usage-Tokens", "dimensions": MODEL},
}


def with_key(path: str = "/v1/x", *fields: str) -> bytes:
    return get(path, f"X-API-Key: {KEY}", *fields)


def split(edge: Edge) -> dict[tuple[str, str], int]:
    """Return acme's billed usage by meter and dimensions."""
    assert edge._supervisor is not None
    totals = edge._supervisor.usage_totals()
    return {(row[1], row[4] if len(row) == 5 else ""): row[3] for row in totals if row[0] == "acme" and row[3]}


WHOLE = ("Content-Length: 5", b"hello")
CHUNKED = ("Transfer-Encoding: chunked", chunks(b"hello"))


@pytest.mark.parametrize(("framing", "content"), [WHOLE, CHUNKED])
async def test_answer_counts_by_the_dimension_in_its_head(edge: Edge, framing: str, content: bytes) -> None:
    edge.config["meters"] = METERS
    said: list[tuple[str, ...]] = [
        ("X-Usage-Model: m/1", "X-Usage-Tokens: 7"),
        ("x-usage-model:  m/1 ",),
        ("X-Usage-Model: m2",),
        ("X-Usage-Model: m3",),
        ("X-Usage-Model: no model",),
        (),
    ]
    for fields in said:
        answer = head("HTTP/1.1 200 OK", *fields, framing) + content
        _, got = await edge.passes(with_key(), answer)
        assert "model" not in str(got).lower()
    first, second, other = '{"model":"m/1"}', '{"model":"m2"}', '{"model":"~other"}'
    each = {first: 2, second: 1, other: 2, "": 1}
    assert split(edge) == {
        ("requests", ""): 6,
        ("tokens", first): 7,
        **{("runs", value): n for value, n in each.items()},
        **{("credits", value): n for value, n in each.items()},
        **{("egress", value): 5 * n for value, n in each.items()},
    }


async def test_dimensions_too_long_for_a_row_are_left_out(edge: Edge) -> None:
    edge.config["meters"] = {
        "runs": {"count": "requests", "dimensions": {"d" * 64: MODEL["model"], "e" * 64: MODEL["model"]}}
    }
    await edge.passes(with_key(), head("HTTP/1.1 200 OK", "X-Usage-Model: " + "m" * 64, "Content-Length: 0"))
    assert split(edge) == {("runs", ""): 1}


async def test_clients_see_the_field_where_it_is_passed(edge: Edge) -> None:
    edge.config["meters"] = {"runs": {"count": "requests", "pass": True, "dimensions": MODEL}}
    answer = head("HTTP/1.1 200 OK", "X-Usage-Model: m1", "Content-Length: 0")
    _, got = await edge.passes(with_key(), answer)
    assert "x-usage-model" in str(got).lower()


def test_dimension_values_are_admitted_anew_each_day() -> None:
    values = DimensionValues()
    dimension = Dimension(values=1)
    take: Callable[[bytes], str] = lambda said: values.count_value("acme", "runs", "model", said, dimension)  # noqa: E731
    values.begin_day(1)
    assert [take(b"a"), take(b"b"), take(b"a"), take(b"\xff")] == ["a", "~other", "a", "~other"]
    values.begin_day(2)
    assert [take(b"b"), take(b"a")] == ["b", "~other"]


async def test_named_dimension_value_is_counted_after_the_maximum_is_reached(edge: Edge) -> None:
    named = {"model": {**MODEL["model"], "named": ["dear", "rare"]}}
    edge.config["meters"] = {"runs": {"count": "requests", "dimensions": named}}
    for model in ("m1", "m2", "m3", "dear", "m4", "dear"):
        await edge.passes(with_key(), head("HTTP/1.1 200 OK", f"X-Usage-Model: {model}", "Content-Length: 0"))
    counts = {"m1": 1, "m2": 1, "~other": 2, "dear": 2}
    assert split(edge) == {("runs", f'{{"model":"{value}"}}'): count for value, count in counts.items()}


async def test_only_meter_is_counted_by_key(edge: Edge) -> None:
    edge.config["meters"] = {"runs": {"count": "requests", "dimensions": {"key": 9}}}
    for _ in range(2):
        await edge.passes(with_key(), ok())
    assert split(edge) == {("runs", f'{{"key":"{digest(KEY)[:16]}"}}'): 2}


async def test_usage_is_counted_by_key_without_a_field(edge: Edge) -> None:
    other = "another-key-of-acme"
    edge.config["keys"].append({"sha256": digest(other), "customer": "acme"})
    by_key: dict[str, Any] = {"dimensions": {"key": 1}}
    edge.config["meters"] = {
        "requests": {"count": "requests"},
        "runs": {"count": "requests", **by_key},
        "tries": {"count": "requests", "when": "admitted", **by_key},
        "credits": {"count": "cost", "dimensions": {"key": 9, **MODEL}},
        "tokens": {"count": "total_tokens", "dimensions": {"key": 9, "model": 9}},
        "ingress": {"count": "bytes_in", **by_key},
    }
    (route,) = (route for route in edge.config["routes"] if route["path"] == "/v1/*")
    route["response_usage"] = "openai"
    usage = compact({"model": "m", "usage": {"prompt_tokens": 1, "completion_tokens": 6}})
    answer = ok(usage, "Content-Type: application/json", "X-Usage-Model: m")
    one, two = (digest(key)[:16] for key in (KEY, other))
    for key in (KEY, KEY, other):
        await edge.passes(get("/v1/x", f"X-API-Key: {key}"), answer)
    first, second, both = (f'{{"key":"{key}"}}' for key in (one, "~other", two))
    split_one, split_two = (f'{{"key":"{key}","model":"m"}}' for key in (one, two))
    assert split(edge) == {
        ("requests", ""): 3,
        ("runs", first): 2,
        ("runs", second): 1,
        ("tries", first): 2,
        ("tries", second): 1,
        ("credits", split_one): 2,
        ("credits", split_two): 1,
        ("tokens", split_one): 14,
        ("tokens", split_two): 7,
    }, f"a customer has as many keys there as are allowed; {both} is the second"


async def test_keyless_request_counts_without_a_key_dimension(edge: Edge) -> None:
    edge.config["meters"] = {"runs": {"count": "requests", "dimensions": {"key": 5}}}
    await edge.passes(get(), ok())
    assert edge._supervisor is not None
    assert [row for row in edge._supervisor.usage_totals() if row[3]] == [("-", "runs", "public", 1)]
