"""The amounts that meters may count."""

from typing import get_args

import pytest

from edgeproxy.config.edge.response_usage import FORMATS, FormatName, ResponseUsage
from edgeproxy.config.meters import MEASURES, PARTS, CountName, Dimension, compute_request_amount, is_by_key


def test_each_count_name_has_a_measure() -> None:
    assert set(get_args(CountName)) == MEASURES.keys()


def test_formats_are_those_of_the_type() -> None:
    assert get_args(FormatName) == FORMATS


def test_request_and_cost_amounts_are_known_before_the_answer() -> None:
    known = {name: amount for name in get_args(CountName) if (amount := compute_request_amount(name, 5))}
    assert known == {"requests": 1, "cost": 5}


def test_only_the_dimension_key_without_a_field_is_the_api_key() -> None:
    own, field = (Dimension.model_validate({"values": 9, **more}) for more in ({}, {"header": "X-Key"}))
    assert [is_by_key(*each) for each in (("key", own), ("key", field), ("model", own))] == [True, False, False]


COUNTED = "meters: {m: {count: input_tokens}}\n"
ROUTE = "routes: [{path: /v1/*, upstream: api, response_usage: openai}]\nupstreams: {api: {endpoints: [http://h]}}\n"


@pytest.mark.parametrize(
    ("meter", "path", "what"),
    [
        ("{count: response_json}", "", "lacks the path of the number"),
        ("{count: output_tokens, json: usage.n}", ".json", "is of a number in JSON"),
        ("{count: response_json, json: usage..n}", ".json", "'usage..n' is not a path of keys"),
        ("{count: requests, missing: bytes/4}", ".missing", "is of what bodies of answers state, not of requests"),
        ("{count: input_tokens, missing: bytes/0}", ".missing", "'bytes/0' is no estimate"),
        ("{count: input_tokens, missing: 4}", ".missing", "'4' is no estimate"),
        ("{count: input_tokens, header: X-Tokens}", ".header", "is of what upstreams report"),
        ("{count: input_tokens, dimensions: {agent: 5}}", ".dimensions.agent", "is nothing that the edge knows"),
        (
            "{count: input_tokens, dimensions: {model: {header: X-Model, values: 5}}}",
            ".dimensions.model.header",
            "is for numbers in heads",
        ),
        ("{count: input_tokens, when: admitted, dimensions: {model: 5}}", ".dimensions", "are known with the answer"),
    ],
)
def test_invalid_body_meter_is_reported(problems, meter, path, what):
    (problem,) = problems(f"region: test\n{ROUTE}meters: {{m: {meter}, out: {{count: output_tokens}}}}\n")
    assert problem.partition(": ")[2].startswith(f"meters.m{path}: ")
    assert what in problem


@pytest.mark.parametrize(
    ("meter", "path", "what"),
    [
        ("{count: bytes_out, scale: 1024}", ".scale", "is no unit of bytes, write one of 1, 1000, 1000000,"),
        ("{count: events, unit: seconds, scale: 100}", ".scale", "is no unit of seconds, write one of 1, 60, 3600,"),
        ("{count: events, scale: 0}", ".scale", "0 is out of range"),
        ("{count: events, unit: furlongs}", ".unit", "'furlongs'"),
        ("{count: events, label: ''}", ".label", "has 0 characters"),
        (f"{{count: events, label: {'x' * 61}}}", ".label", "has 61 characters"),
    ],
)
def test_misspelled_meter_is_reported(problems, meter, path, what):
    (problem,) = problems(f"region: test\n{ROUTE}meters: {{m: {meter}, out: {{count: output_tokens}}}}\n")
    assert problem.partition(": ")[2].startswith(f"meters.m{path}: ")
    assert what in problem


@pytest.mark.parametrize("format_", [*FORMATS, "{format: json, read_on: 0s, read_on_size: 0B}"])
def test_route_accepts_each_response_usage_format(problems, format_):
    meters = (
        "meters: {m: {count: total_tokens, missing: 0, dimensions: {model: 5, estimated: {values: 2}}}, "
        "n: {count: response_json, json: a.b_c.d, missing: bytes/4}}\n"
    )
    assert problems(f"region: test\n{ROUTE.replace('openai', format_)}{meters}") == []


@pytest.mark.parametrize(
    ("text", "path", "what"),
    [
        (ROUTE, "response_usage", "is read, and no meter counts it"),
        (ROUTE.replace("openai", "{}") + COUNTED, "response_usage.format", "is missing"),
        (ROUTE.replace("openai", "opnai") + COUNTED, "response_usage", "did you mean openai"),
        (ROUTE.replace("openai", "openai, compress: on") + COUNTED, "compress", "cannot stand beside response_usage"),
        (
            ROUTE.replace("openai", "{format: gemini, ask_for_usage: on}") + COUNTED,
            "response_usage.ask_for_usage",
            "is of OpenAI's",
        ),
        (
            ROUTE.replace("openai", "{format: openai, ask_for_usage: on}") + COUNTED + "\nstamp_signature: v2\n"
            "stamp_secret: ooooooooooooooooooooooooooooooooooooooooo\n",
            "response_usage.ask_for_usage",
            "changes bodies, which stamp_signature: v2 signs",
        ),
        (ROUTE.replace("upstream: api", "respond: {status: 200}") + COUNTED, "response_usage", "is of what upstreams"),
    ],
)
def test_invalid_usage_route_is_reported(problems, text, path, what):
    (problem,) = problems(f"region: test\n{text}")
    assert f"routes.0.{path}: " in problem
    assert what in problem


def test_an_estimate_is_of_the_bodies_that_have_the_text():
    sizes = {name: measure.in_body(3, 5) for name, measure in MEASURES.items() if measure.in_body is not None}
    assert sizes == {
        "input_tokens": 3,
        "uncached_tokens": 3,
        "output_tokens": 5,
        "response_json": 5,
        "total_tokens": 8,
        "fresh_tokens": 3,
        **dict.fromkeys(PARTS, 0),
    }


@pytest.mark.parametrize(("ask", "refuses"), [(None, False), (True, False), ({"else": "refuse"}, True)])
def test_a_route_may_refuse_streams_that_cannot_be_asked(ask: object, refuses: bool) -> None:
    usage = ResponseUsage.model_validate({"format": "openai", "ask_for_usage": ask})
    assert usage.refuses_unasked is refuses
