"""Readers of bodies: their details beside the values, and rare forms of bodies."""

from base64 import b64encode
from struct import pack

import pytest

from edgeproxy.edge.body_usage.amazon_reader import AmazonReader
from edgeproxy.edge.body_usage.answer_text import AnswerText
from edgeproxy.edge.body_usage.body_kind import BodyKind, describe_body
from edgeproxy.edge.body_usage.formats import get_usage_format
from edgeproxy.edge.body_usage.json_fields import JsonFields
from edgeproxy.edge.body_usage.readers import (
    BodyReader,
    EventStreamReader,
    IgnoringReader,
    JsonReader,
    LinesReader,
)
from edgeproxy.edge.body_usage.statement import get_finder

FIELDS = JsonFields({("model",): ("model",), ("usage", "n"): ("n",)})
MARKERS = (b'"n"',)
CONTENT = b'{"model": "m", "text": "a"}'
USAGE = b'{"usage": {"n": 7}}'
BOM = b"\xef\xbb\xbf"


def test_events_behind_a_cut_byte_order_mark_are_read() -> None:
    reader = EventStreamReader(FIELDS, MARKERS, "model")
    for piece in (BOM[:1], BOM[1:], b"data: " + CONTENT + b"\n\ndata: " + USAGE):
        reader.feed(piece)
    reader.finish()
    assert reader.values == {"model": b'"m"', "n": b"7"}
    assert (reader.has_content, reader.is_readable, reader.is_marked) == (True, True, True)


def test_event_reader_skips_events_without_a_usage_marker() -> None:
    reader = EventStreamReader(FIELDS, MARKERS, "model")
    content = b"data: " + CONTENT + b"\n\n"
    for piece in (content, content, content + b"data: " + USAGE + b"\n\n"):
        reader.feed(piece)
    assert reader.values["n"] == b"7"
    assert reader.has_content


def test_lines_reader_reports_each_line_or_their_union() -> None:
    lines: list[dict[str, bytes]] = []
    for on_line, values in ((lines.append, {}), (None, {"model": b'"m"', "n": b"7"})):
        reader = LinesReader(FIELDS, MARKERS, "model", on_line)
        for piece in (CONTENT[:5], CONTENT[5:] + b"\n", CONTENT + b"\n", b'{"type":"ping"}\n\n', USAGE + b"\n", USAGE):
            reader.feed(piece)
        reader.finish()
        assert reader.values == values
        assert reader.has_content
        assert reader.is_marked
    assert lines[-1] == {"n": b"7"}


def build_message(payload: bytes) -> bytes:
    """A message of Amazon's event streams."""
    return pack(">II", 16 + len(payload), 0) + bytes(4) + payload + bytes(4)


def test_message_of_amazon_with_broken_or_no_payload_states_nothing() -> None:
    reader = AmazonReader(FIELDS)
    for payload in (b"", b'{"bytes":"%b"}' % b64encode(USAGE), b'{"bytes":"x"}', CONTENT):
        reader.feed(build_message(payload))
    reader.finish()
    assert reader.values == {"n": b"7", "model": b'"m"'}
    assert reader.has_content
    assert reader.is_readable


def test_speech_is_not_read() -> None:
    reader = IgnoringReader()
    reader.feed(b"ID3")
    reader.finish()
    assert reader.values == {}


@pytest.mark.parametrize("body", [b"", b" "])
def test_body_without_a_beginning_states_nothing(body: bytes) -> None:
    reader = BodyReader(lambda first, is_all: None)
    reader.feed(body)
    reader.finish()
    assert (reader.values, reader.is_readable, reader.has_content, reader.is_marked) == ({}, False, False, False)
    assert reader.is_text


@pytest.mark.parametrize(
    ("kind", "body", "is_long"),
    [
        (BodyKind.JSON, b'{"x":"%b"}' % (b"a" * (300 << 10)), False),
        (BodyKind.JSON, b'{"x":"%b"}' % (b"a" * (400 << 10)), True),
        (BodyKind.STREAM, b"data: {}\n\n" * (100 << 10), False),
    ],
)
def test_json_of_which_the_middle_is_dropped_is_long(kind: BodyKind, body: bytes, is_long: bool) -> None:
    reader = get_usage_format("openai").create_reader(kind)
    assert not reader.is_long
    for at in range(0, len(body), 100 << 10):
        reader.feed(body[at : at + (100 << 10)])
    reader.finish()
    assert reader.is_long is is_long


def test_beginning_chooses_the_reader() -> None:
    reader = get_usage_format("openai").create_reader(BodyKind.TEXT, None)
    reader.feed(b" \nda")
    reader.feed(b'ta: {"model": "m", "usage": {"prompt_tokens": 1}}\n\n')
    reader.finish()
    assert reader.values["prompt"] == 1
    assert (reader.is_readable, reader.has_content, reader.is_marked, reader.is_text) == (True, False, True, True)


def test_total_is_the_sum_of_parts_that_stand_beside_each_other() -> None:
    parts = b'"promptTokenCount": 5, "toolUsePromptTokenCount": 2, "candidatesTokenCount": 3, "totalTokenCount": 10'
    counts, _ = get_usage_format("gemini").read_json(b'{"usageMetadata": {%b}}' % parts)
    assert (counts.find_number("input_tokens"), counts.find_number("output_tokens"), counts.rule) == (7, 3, "")


def test_member_of_another_type_leaves_the_rest_to_be_read() -> None:
    """Within an object of numbers, and within one that is found in another."""
    usage_format = get_usage_format("anthropic", has_tier=True)
    usage = b'"usage": {"input_tokens": %b, "cache_read_input_tokens": 2, "service_tier": ""}'
    for text in (b"{%b}", b'{"message": {"model": "m", %b}}'):
        for written, number in ((b"5", 7), (b'"5"', None), (b"5.0", None), (b"true", None), (b"[]", None)):
            counts, _ = usage_format.read_json(text % (usage % written))
            assert (counts.find_number("input_tokens"), counts.values["cached beside"]) == (number, 2)
            assert counts.find_text("tier") is None


def test_number_at_a_path_is_found_beside_the_counts() -> None:
    counts, _ = get_usage_format("openai", ("usage.prompt_tokens",)).read_json(b'{"usage": {"prompt_tokens": 4}}')
    finders = [get_finder(count) for count in ("$.usage.prompt_tokens", "input_tokens")]
    assert [find(counts.resolve()) for find in finders] == [4, 4]


def test_text_of_a_body_is_measured_in_each_form() -> None:
    usage_format = get_usage_format("any")

    def measure(kind: BodyKind, *pieces: bytes) -> int:
        text = AnswerText()
        reader = usage_format.create_reader(kind, None, text)
        for piece in pieces:
            reader.feed(piece)
        reader.finish()
        return text.size

    named, other = b'{"model": "m", "content": "one"}', b'{"content": "three"}'
    usage = b'{"usage": {"prompt_tokens": 1}}'
    event = b"data: %b\n\n"
    assert (
        measure(BodyKind.STREAM, event % named, event % other, event % other + event % usage, b"data: " + other) == 18
    )
    assert measure(BodyKind.LINES, named + b"\n", other + b"\n", other + b"\n" + usage, b"") == 13
    assert measure(BodyKind.JSON, other[:5], other[5:]) == 5
    assert measure(BodyKind.JSON, usage[:-1] + b", " + other[1:]) == 0, "its usage is stated"
    packed = b'{"bytes": "' + b64encode(other) + b'"}'
    assert measure(BodyKind.AMAZON, build_message(other), build_message(packed), build_message(b'{"bytes": "A"}')) == 10


@pytest.mark.parametrize(
    ("body", "is_marked"),
    [
        (b'{"usage": {"inputTokens": 5}}', True),
        (b'{"x": [{"generated_token_count": "7"}]}', True),
        (b'{"usageInfo": [{"a": 1}]}', True),
        (b'{"promptTokens" : 12}', True),
        (b'{"usage": null, "max_output_tokens": 5, "inputTokenLimit": 9, "tokens": ["a"], "token": "b"}', False),
        (b'{"usage": {}, "total_tokens": 0}', False),
    ],
)
@pytest.mark.parametrize("form", ["json", "long", "events", "pieces of events", "lines", "pieces of lines", "amazon"])
def test_reader_finds_usage_of_any_shape_at_the_end(form: str, body: bytes, is_marked: bool) -> None:
    reader: JsonReader | EventStreamReader | LinesReader | AmazonReader
    if form == "amazon":
        reader, pieces = AmazonReader(FIELDS), [build_message(CONTENT), build_message(body)]
    elif "events" in form:
        reader = EventStreamReader(FIELDS, MARKERS, "model")
        whole = [b'data: {"model": "m"}\n\n', b"data: {}\n\n", b"data: %b\n\n" % body, b"data: [DONE]\n\n"]
        pieces = whole if "pieces" in form else [b"".join(whole)]
    elif "lines" in form:
        reader = LinesReader(FIELDS, MARKERS, "model")
        whole = [b'{"model": "m"}\n', b"{}\n", body + b"\n"]
        pieces = whole if "pieces" in form else [b"".join(whole)]
    else:
        reader = JsonReader(FIELDS)
        pieces = [b"[%b, %b]" % (b"0," * (400 << 10 if form == "long" else 1) + b"0", body)]
    for piece in pieces:
        reader.feed(piece)
    reader.finish()
    assert reader.is_marked is is_marked


# ---- the kind of a body, by the head of its answer


JSON, STREAM, LINES, AMAZON, TEXT, NEITHER, ENCODED = BodyKind


@pytest.mark.parametrize(
    ("lines", "kind"),
    [
        (["Content-Type: application/json"], (JSON, b"")),
        (["content-type:APPLICATION/JSON ; charset=utf-8", "Content-Encoding:"], (JSON, b"")),
        (["Content-Type: application/vnd.api+json", "Content-Encoding: identity"], (JSON, b"")),
        (["Content-Encoding: GZIP", "Content-Type: text/event-stream"], (STREAM, b"gzip")),
        (["Content-Type: application/json", "Content-Encoding: deflate"], (JSON, b"deflate")),
        (["Content-Type: application/json", "Content-Encoding: zstd"], (JSON, b"zstd")),
        (["Content-Type: application/json", "Content-Encoding: br"], (ENCODED, b"")),
        (["Content-Type: application/json", "Content-Encoding: gzip, gzip"], (ENCODED, b"")),
        (["Content-Type: text/plain", "Content-Encoding: br"], (ENCODED, b"")),
        (["X-Content-Type: application/json"], (TEXT, b"")),
        ([], (TEXT, b"")),
        (["Content-Type: application/octet-stream"], (TEXT, b"")),
        (["Content-Type: application/x-ndjson; charset=utf-8"], (LINES, b"")),
        (["Content-Type: application/json-seq"], (LINES, b"")),
        (["Content-Type: application/vnd.amazon.eventstream"], (AMAZON, b"")),
        (["Content-Type: audio/mpeg"], (NEITHER, b"")),
    ],
)
def test_answer_head_determines_the_body_kind(lines: list[str], kind: tuple[BodyKind, bytes]) -> None:
    head = "".join(line + "\r\n" for line in ["HTTP/1.1 200 OK", "Date: x", *lines])
    assert describe_body(head.encode()) == kind
