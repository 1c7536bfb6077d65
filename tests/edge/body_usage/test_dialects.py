"""The table of dialects, row by row, with recorded answers: whole, and cut at each byte."""

import json
from base64 import b64decode
from pathlib import Path
from typing import Any

import pytest

from edgeproxy.config.edge.response_usage import FORMATS, FormatName, ResponseUsage
from edgeproxy.edge.body_usage.body_kind import BodyKind, describe_body
from edgeproxy.edge.body_usage.dialect_rows import ROWS
from edgeproxy.edge.body_usage.dialects import NUMBERS
from edgeproxy.edge.body_usage.format_paths import list_paths
from edgeproxy.edge.body_usage.formats import get_usage_format
from edgeproxy.edge.body_usage.operations import find_work
from edgeproxy.edge.body_usage.statement import StatedCounts

ANSWERS = [json.loads(line) for line in (Path(__file__).parent / "answers.jsonl").read_text().splitlines()]


def name(answer: dict[str, Any]) -> str:
    return f"{ANSWERS.index(answer)} {answer['provider']} {answer['operation']} {answer['type']}"


def get_body(answer: dict[str, Any]) -> bytes:
    return b64decode(answer["base64"]) if "base64" in answer else answer["body"].encode()


def read(answer: dict[str, Any], *pieces: bytes) -> StatedCounts:
    usage_format = get_usage_format(answer["format"])
    kind, _ = describe_body(b"\r\ncontent-type: %b\r\n" % answer["type"].encode())
    reader = usage_format.create_reader(BodyKind.JSON if answer["type"] == "websocket" else kind)
    for piece in pieces:
        reader.feed(piece)
    reader.finish()
    return usage_format.compute_counts(reader.values, has_output=find_work(b"POST", answer["path"].encode())[1])


def list_counts(answer: dict[str, Any], counts: StatedCounts) -> dict[str, int | None]:
    return {count: counts.find_number(count) for count in answer["counts"]}


@pytest.mark.parametrize("answer", ANSWERS, ids=name)
def test_recorded_answer_counts_the_same_however_it_is_cut(answer: dict[str, Any], seed: int, at_night: bool) -> None:
    body = get_body(answer)
    # JSON is read at its end, wherever it was cut. By day some cuts are tried alone, and all of them together.
    step = 29 if "event-stream" not in answer["type"] and "base64" not in answer else 1 if at_night else 5
    cuts = range(1 + seed % step, len(body), step)
    pieces = [(body,), *[(body[:at], body[at:]) for at in cuts], [bytes([byte]) for byte in body]]
    for piece in pieces:
        counts = read(answer, *piece)
        assert list_counts(answer, counts) == answer["counts"]
    assert counts.rule == answer.get("rule", "")
    assert (counts.model or "") == (answer["model"] or "")


def test_each_row_has_a_recorded_answer_and_a_source() -> None:
    rows = {(row.provider, row.operation, row.format) for row in ROWS}
    assert rows == {(answer["provider"], answer["operation"], answer["format"]) for answer in ANSWERS}
    assert len(ANSWERS) >= 80
    assert all(row.source.startswith("https://") for row in ROWS)
    assert {row.format for row in ROWS} == set(FORMATS) - {"any", "json"}


@pytest.mark.parametrize("answer", [answer for answer in ANSWERS if "event-stream" in answer["type"]], ids=name)
def test_cut_stream_never_states_more_than_the_whole(answer: dict[str, Any], seed: int, at_night: bool) -> None:
    body = get_body(answer)
    for at in range(len(body)) if at_night else range(seed % 5, len(body), 5):
        for count, number in list_counts(answer, read(answer, body[:at])).items():
            assert number is None or number <= answer["counts"][count]


@pytest.mark.parametrize("answer", ANSWERS, ids=name)
def test_any_format_reads_each_answer_as_its_own_does(answer: dict[str, Any]) -> None:
    counts = read({**answer, "format": "any"}, get_body(answer))
    assert list_counts(answer, counts) == answer["counts"]


@pytest.mark.parametrize("label", ["application/json", "text/plain", "text/event-stream", ""])
def test_reader_detects_events_or_json_by_the_first_bytes(label: str) -> None:
    """Services label events as JSON or text, and errors of streams as events."""
    for answer in [answer for answer in ANSWERS if "json" in answer["type"] or "event-stream" in answer["type"]]:
        if answer["type"] in ("application/x-ndjson", "application/x-jsonl"):
            continue
        assert list_counts(answer, read({**answer, "type": label}, get_body(answer))) == answer["counts"]


def test_format_of_an_operator_is_read_with_its_parts_beside() -> None:
    settings = ResponseUsage.model_validate(
        {
            "format": {
                "input": "meta.in",
                "output": ["meta.out", "tokens_out"],
                "cached": "meta.cached",
                "reasoning": "meta.thoughts",
                "beside": ["cached", "reasoning"],
                "model": "meta.name",
            }
        }
    )
    usage_format = get_usage_format(settings.format)
    body = b'{"model": "m", "meta": {"in": 3, "cached": 4, "thoughts": 5, "name": "x"}, "tokens_out": 6}'
    for kind, written in (
        (BodyKind.JSON, body),
        (BodyKind.STREAM, b"data: {}\n\ndata: " + body),
        (BodyKind.LINES, body),
    ):
        reader = usage_format.create_reader(kind)
        reader.feed(written)
        reader.finish()
        counts = usage_format.compute_counts(reader.values)
        numbers = [counts.find_number(f"{count}_tokens") for count in ("input", "cached", "output", "total")]
        assert (numbers, counts.model) == ([7, 4, 11, 18], "x")


@pytest.mark.parametrize(
    ("usage", "numbers", "rule"),
    [
        ({"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 0}, (10, 5, 15), ""),
        ({"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": None}, (10, 5, 15), ""),
        ({"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 12}, (10, 5, 15), "parts"),
        ({"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 22}, (10, 12, 22), "surplus"),
        ({"completion_tokens": 5, "total_tokens": 22}, (17, 5, 22), ""),
        (
            {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 15, "cached_tokens": 7},
            (10, 5, 15),
            "input beside",
        ),
        ({"prompt_tokens": "10", "completion_tokens": 5, "total_tokens": 15}, (None, 5, None), ""),
        ({"prompt_tokens": -10, "completion_tokens": 5.5, "total_tokens": 15}, (None, None, None), ""),
        ({"total_tokens": 15}, (None, None, 15), ""),
    ],
)
def test_total_and_parts_are_checked(usage: object, numbers: tuple[int | None, ...], rule: str) -> None:
    counts, _ = get_usage_format("openai").read_json(json.dumps({"usage": usage}).encode())
    assert tuple(counts.find_number(f"{count}_tokens") for count in ("input", "output", "total")) == numbers
    assert counts.rule == rule


OWN = {"input_tokens": 10, "cache_read_input_tokens": 5, "output_tokens": 2}
MESSAGE = {"type": "message", **OWN}
BESIDE = {"type": "compaction", "input_tokens": 100, "cache_creation_input_tokens": 7, "output_tokens": 30}


@pytest.mark.parametrize(
    ("steps", "numbers"),
    [
        ([BESIDE, MESSAGE], (122, 5, 7, 32)),
        ([MESSAGE], (15, 5, 0, 2)),
        ([BESIDE, BESIDE], (229, 5, 14, 62)),
        ([{**BESIDE, "type": "planner_of_tomorrow"}, MESSAGE], (122, 5, 7, 32)),
        ([{**OWN, "type": "planner_of_tomorrow"}], (15, 5, 0, 2)),  # The answer states the sum of all.
        ([{**BESIDE, "type": []}, MESSAGE], (122, 5, 7, 32)),
        ([{"type": "fallback_message", **OWN}, {**MESSAGE, "input_tokens": 900}], (15, 5, 0, 2)),
        ([{**BESIDE, "output_tokens": 3.5}, MESSAGE], (122, 5, 7, None)),
        ([{**BESIDE, "input_tokens": "100"}, MESSAGE], (None, 5, 7, 32)),
        ([{**BESIDE, "input_tokens": -1}, MESSAGE], (None, 5, 7, 32)),
        ([{**BESIDE, "output_tokens": True}, MESSAGE], (122, 5, 7, None)),
        ([{**BESIDE, "output_tokens": None}, MESSAGE], (122, 5, 7, 2)),
        ([1, "compaction", None, [BESIDE], {}], (15, 5, 0, 2)),
        ([], (15, 5, 0, 2)),
        ({"0": BESIDE}, (15, 5, 0, 2)),
        ("compaction", (15, 5, 0, 2)),
        (None, (15, 5, 0, 2)),
    ],
)
@pytest.mark.parametrize("name", ["anthropic", "any"])
def test_steps_beside_an_answer_are_added_once(
    name: FormatName, steps: object, numbers: tuple[int | None, ...]
) -> None:
    """https://platform.claude.com/docs/en/build-with-claude/compaction: `usage` has the messages alone."""
    written = json.dumps({"usage": {**OWN, "iterations": steps}}).encode()
    usage_format = get_usage_format(name)
    streamed = usage_format.create_reader(BodyKind.STREAM)
    streamed.feed(b'data: {"type":"message_start","message":{"model":"m","usage":{"input_tokens":10}}}\n\n')
    streamed.feed(b"data: " + written + b"\n\n")
    streamed.finish()
    names = ("input_tokens", "cached_tokens", "cache_write_tokens", "output_tokens")
    for counts in (usage_format.read_json(written)[0], usage_format.compute_counts(streamed.values)):
        assert tuple(counts.find_number(name) for name in names) == numbers


def test_no_path_has_two_meanings() -> None:
    for name in FORMATS:
        paths = list_paths(name)
        assert all(not path.startswith(f"{other}.") for path in paths for other in paths if paths[other][0] in NUMBERS)
