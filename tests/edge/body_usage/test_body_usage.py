"""Usage stated in bodies: the formats of model responses, with any read boundaries, and odd or forged contents."""

import json
from collections.abc import Iterator
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.config.edge.response_usage import FormatName
from edgeproxy.edge.body_usage.body_kind import BodyKind
from edgeproxy.edge.body_usage.formats import UsageFormat, get_usage_format
from edgeproxy.edge.body_usage.json_fields import NUMBER_MAX, Value
from edgeproxy.edge.body_usage.json_text import TOKENS_MAX, JsonText
from edgeproxy.edge.body_usage.readers import EVENTS_WITHOUT_MODEL_MAX, EventStreamReader
from edgeproxy.edge.body_usage.statement import StatedCounts
from tests.edge.body_usage.transcripts import (
    ANTHROPIC_STREAM,
    CHAT_STREAM,
    CHAT_USAGE,
    TEXT,
    TRANSCRIPTS,
    chat_chunk,
    compact,
    events,
)

NAMES = ("input_tokens", "cached_tokens", "uncached_tokens", "output_tokens", "total_tokens")
NOTHING = (None,) * 5


@cache
def usage_format_of(format_: FormatName, paths: tuple[str, ...]) -> UsageFormat:
    """Return a format as the edge creates it, once for all responses."""
    return UsageFormat(format_, paths)


def read(format_: FormatName, *pieces: bytes, is_stream: bool, paths: tuple[str, ...] = ()) -> StatedCounts:
    usage_format = usage_format_of(format_, paths)
    reader = usage_format.create_reader(BodyKind.STREAM if is_stream else BodyKind.JSON)
    for piece in pieces:
        reader.feed(piece)
    reader.finish()
    return usage_format.compute_counts(reader.values)


def list_counts(counts: StatedCounts) -> tuple[int | None, ...]:
    return tuple(map(counts.find_number, NAMES))


def list_unreadable(counts: StatedCounts) -> dict[str, bytes]:
    return {name: written for name in NAMES if (written := counts.find_unreadable(name)) is not None}


def read_json(body: object, format_: FormatName = "openai") -> tuple[int | None, ...]:
    return list_counts(read(format_, body if isinstance(body, bytes) else compact(body), is_stream=False))


def read_stream(*pieces: bytes, format_: FormatName = "openai") -> tuple[int | None, ...]:
    return list_counts(read(format_, *pieces, is_stream=True))


def cuts(body: bytes) -> Iterator[tuple[bytes, ...]]:
    """Yield the body in one piece, in two pieces cut at every byte, and byte by byte."""
    yield (body,)
    yield from ((body[:at], body[at:]) for at in range(1, len(body)))
    yield tuple(body[at : at + 1] for at in range(len(body)))


# ---- real formats


@pytest.mark.parametrize("name", TRANSCRIPTS)
def test_read_boundaries_do_not_change_the_counts_of_a_transcript(name: str) -> None:
    format_, is_stream, body, counts, model = TRANSCRIPTS[name]
    for pieces in cuts(body):
        result = read(format_, *pieces, is_stream=is_stream)
        assert (list_counts(result), result.model) == (counts, model), pieces
        assert list_unreadable(result) == {}
    if not is_stream:
        assert list_counts(UsageFormat(format_).read_json(body)[0]) == counts


@given(st.sampled_from([name for name, transcript in TRANSCRIPTS.items() if transcript.is_stream]), st.data())
def test_line_ends_and_read_boundaries_do_not_change_the_counts(name: str, data: st.DataObject) -> None:
    """Lines end in CR, LF or CRLF. Comments, ids, a BOM, a missing space and data in several lines are valid."""
    format_, _, body, counts, model = TRANSCRIPTS[name]
    ends = st.sampled_from([b"\n", b"\r", b"\r\n"])
    written = data.draw(st.sampled_from([b"", b"\xef\xbb\xbf"]))
    for line in body.split(b"\n")[:-1]:
        text = line
        if line.startswith(b"data: {"):
            for extra in data.draw(st.lists(st.sampled_from([b": hi", b":", b"id: 1", b"data", b"retry", b"datax:{"]))):
                written += extra + data.draw(ends)
            if data.draw(st.booleans()):
                text = line.replace(b',"', b"," + data.draw(ends) + b'data:"', 1)
            if data.draw(st.booleans()):
                text = text.replace(b"data: ", b"data:", 1)
        # An LF after a CR does not end another line.
        written += text + (b"\r" if not line and written.endswith(b"\r") else data.draw(ends))
    at = sorted(data.draw(st.lists(st.integers(0, len(written)), max_size=5)))
    pieces = [written[start:end] for start, end in zip([0, *at], [*at, len(written)], strict=True)]
    result = read(format_, *pieces, is_stream=True)
    assert (list_counts(result), result.model) == (counts, model)


def test_a_cut_off_stream_states_its_complete_events() -> None:
    """For each prefix of a stream, an event counts once its JSON is complete. The output is stated last."""
    done = len(CHAT_STREAM) - len(b"\n\ndata: [DONE]\n\n")
    for end in range(len(CHAT_STREAM)):
        assert read_stream(CHAT_STREAM[:end]) == (NOTHING if end < done else (19, 7, 12, 10, 29))
    started, stated = ANTHROPIC_STREAM.index(b"\n\n"), ANTHROPIC_STREAM.rindex(b"\n\nevent: message_stop")
    for end in range(len(ANTHROPIC_STREAM)):
        counts = (20, 3, 17, None, None) if end < stated else (20, 3, 17, 15, 35)
        assert read_stream(ANTHROPIC_STREAM[:end], format_="anthropic") == (NOTHING if end < started else counts)


def test_the_model_is_known_of_a_stream_that_states_no_usage() -> None:
    assert read("openai", events(chat_chunk({})), is_stream=True).model == "gpt-4o-2024-08-06"
    unnamed = [{"type": "ping"}] * (EVENTS_WITHOUT_MODEL_MAX - 1)
    assert read("openai", events(*unnamed, {"model": "late"}), is_stream=True).model == "late"
    assert read("openai", events({}, *unnamed, {"model": "late"}), is_stream=True).model is None


@pytest.mark.parametrize(
    ("written", "model"),
    [
        (b'"a\\/b"', "a/b"),
        (b'"\\ud83d\\ude42"', "🙂"),
        (b"5", "5"),
        (b"{}", None),
        (b'""', None),
        (b"null", None),
        (b'"\xff"', '"\ufffd"'),
    ],
)
def test_the_model_is_text_or_the_written_json(written: bytes, model: str | None) -> None:
    assert read("openai", b'{"model":%b}' % written, is_stream=False).model == model


def test_numbers_by_path() -> None:
    body = {"usage": {"total_tokens": 7, "units": {"a": 3}}, "model": "m", "input_tokens": 4}
    paths = ("usage.total_tokens", "usage.units.a", "usage.units", "input_tokens", "nothing")
    for stream in (False, True):
        written = events(chat_chunk({}), body, {"a": 1}) if stream else compact(body)
        counts = read("json", written, is_stream=stream, paths=paths)
        numbers = {"usage.total_tokens": 7, "usage.units.a": 3, "usage.units": None, "input_tokens": 4, "nothing": None}
        assert {path: counts.find_number(f"$.{path}") for path in paths} == numbers
        assert counts.find_unreadable("$.usage.units") == (b'{"a":3}' if stream else b'{"a": 3}')
        assert counts.find_unreadable("$.nothing") is None
        assert counts.model == "m"
    counts = read("openai", compact({"usage": CHAT_USAGE}), is_stream=False, paths=("usage.prompt_tokens",))
    assert (counts.find_number("$.usage.prompt_tokens"), counts.find_number("input_tokens")) == (19, 19)


def test_each_answer_within_a_batch_is_counted() -> None:
    usage = {"promptTokenCount": 3, "candidatesTokenCount": 4, "totalTokenCount": 7}
    answers = [{"response": {"modelVersion": "m", "usageMetadata": usage}}, {"error": {"code": 3}}]
    gemini = get_usage_format("gemini")
    batch = {"response": {"inlinedResponses": {"inlinedResponses": answers}}}
    counts, is_readable = gemini.read_json(json.dumps(batch).encode())
    assert is_readable
    first, second = gemini.read_results(counts.values)
    assert gemini.compute_counts(first).find_number("total_tokens") == 7
    assert gemini.compute_counts(second).find_number("total_tokens") is None
    assert gemini.read_results({}) == []


def test_formats_list_the_counts_that_they_may_state() -> None:
    usage_format = UsageFormat("json", ("usage.n",))
    counts = ("$.usage.n", "$.usage", "total_tokens")
    assert [usage_format.states(count) for count in counts] == [True, False, False]
    assert all(UsageFormat(name).states("uncached_tokens") for name in ("openai", "anthropic", "gemini"))


@pytest.mark.parametrize("named", [{"usage": CHAT_USAGE}, {"units": 3}, {"other": 4}])
def test_a_piece_is_read_for_each_marker(named: dict[str, object]) -> None:
    begun = [events(chat_chunk({})), events(chat_chunk({}))]
    counts = read("openai", *begun, events(named), is_stream=True, paths=("units", "other"))
    numbers = [counts.find_number(name) for name in ("input_tokens", "$.units", "$.other")]
    assert numbers == [19 if "usage" in named else None, named.get("units"), named.get("other")]


@pytest.mark.parametrize("odd", [b"[]", b'"x"', b"7", b"null", b"{}"])
def test_usage_beside_an_odd_member_is_counted(odd: bytes) -> None:
    for before, after in ((b"", b',"response":%b' % odd), (b'"message":%b,' % odd, b""), (b'"usage":%b,' % odd, b"")):
        body = b'{%b"model":"m","usage":{"prompt_tokens":4,"prompt_tokens_details":%b}%b}' % (before, odd, after)
        counts = read("openai", body, is_stream=False)
        assert (list_counts(counts), counts.model) == ((4, 0, 4, 0, 4), "m")


# ---- odd and forged contents


NO_NUMBERS = (
    *(b"-1", b"1.0", b"1e3", b"1e30", b'"12"', b"true", b"[1]", b'{"prompt_tokens":5}'),
    *(str(NUMBER_MAX + 1).encode(), b"9" * 5000),
)


@pytest.mark.parametrize("number", NO_NUMBERS, ids=range(len(NO_NUMBERS)))
@pytest.mark.parametrize("is_stream", [False, True])
def test_an_invalid_number_is_not_stated(number: bytes, is_stream: bool) -> None:
    body = b'{"usage":{"prompt_tokens":%b,"completion_tokens":5}}' % number
    counts = read("openai", b"data:%b\n\n" % body if is_stream else body, is_stream=is_stream)
    assert list_counts(counts) == (None, 0, None, 5, None)
    assert list_unreadable(counts) == dict.fromkeys(("input_tokens", "uncached_tokens", "total_tokens"), number)


def test_an_invalid_number_leaves_the_others_stated() -> None:
    counts = read("openai", b'{"usage":{"prompt_tokens":4,"completion_tokens":"x"}}', is_stream=False)
    assert list_counts(counts) == (4, 0, 4, None, None)
    assert list_unreadable(counts) == dict.fromkeys(("output_tokens", "total_tokens"), b'"x"')
    assert read_json({"usage": {"prompt_tokens": NUMBER_MAX, "completion_tokens": None}})[0] == NUMBER_MAX
    assert read_json(b'{"usage":{"prompt_tokens":4,"prompt_tokens_details":{"cached_tokens":9}}}') == (4, 9, 0, 0, 4)
    body = b'{"usage":{"prompt_tokens":4,"prompt_tokens_details":{"cached_tokens":-9}}}'
    assert read_json(body) == (4, None, None, 0, 4)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[",
        b"5",
        b'"usage"',
        b"null",
        b"[[]]",
        b"[1, {}, null]",
        b'{"usage":{"prompt_tokens":4}',
        b'{"usage":{"prompt_tokens":4}}}',
        b'{"usage":{"prompt_tokens":04}}',
        b'{"usage":[{"prompt_tokens":4}]}',
        b'{"usage":"{\\"prompt_tokens\\":4}"}',
        b'{"usage":null}',
        b'{"choices":[{"usage":{"prompt_tokens":4}}]}',
        b'{"Usage":{"prompt_tokens":4}}',
        b'{"metadata":{"usage":{"prompt_tokens":4}}}',
        b'{"response":{"response":{"usage":{"input_tokens":4}}}}',
        b"[" * 100_000,
        b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b',"usage":{"prompt_tokens":4}}',
    ],
    ids=range(20),
)
def test_bodies_without_usage_state_nothing(body: bytes) -> None:
    assert read_json(body) == NOTHING
    assert read_stream(b"data: " + body + b"\n\n") == NOTHING


def test_the_last_of_repeated_keys_counts() -> None:
    assert read_json(b'{"usage":{"prompt_tokens":4},"usage":{"prompt_tokens":5,"prompt_tokens":6}}')[0] == 6
    assert read_json(b'{"us\\u0061ge":{"prompt_tokens":4}}')[0] == 4
    assert read_json(b'\xef\xbb\xbf{"usage":{"prompt_tokens":4}}')[0] == 4
    assert read_json(b' [ {"usage":{"prompt_tokens":4}}, {"usage":5}, 7, {} ] ')[0] == 4


def test_text_written_by_models_is_not_read_as_usage() -> None:
    for text in (TEXT, '","usage":{"prompt_tokens":1}', "\\", '\\"}', "\r\n\r\ndata: {}"):
        body = {"choices": [{"message": {"content": text, "usage": CHAT_USAGE}}], "usage": {"prompt_tokens": 4}}
        assert read_json(body)[0] == 4
        assert read_json({**body, "usage": {}}) == NOTHING
        assert read_stream(events(chat_chunk({"content": text, "usage": CHAT_USAGE}))) == NOTHING


def test_many_events_use_no_memory() -> None:
    usage_format = UsageFormat("openai")
    reader = usage_format.create_reader(BodyKind.STREAM)
    piece = events(*[chat_chunk({"content": "x"})] * 1000)
    for _ in range(100):
        reader.feed(piece)
    reader.feed(events({"usage": CHAT_USAGE}))
    assert usage_format.compute_counts(reader.values).find_number("total_tokens") == 29
    assert reader.is_readable
    assert len(reader.values) == 10


def test_a_stream_may_begin_with_a_mark_in_pieces_and_have_empty_lines() -> None:
    body = b'\n\r\n:\n\ndata:{"usage":{"prompt_tokens":4}}\n\n\n'
    for mark in (b"\xef\xbb\xbf", b""):
        for pieces in cuts(mark + body):
            assert read_stream(*pieces)[0] == 4
    assert read_stream(b'\xef\xbbdata:{"usage":{"prompt_tokens":4}}\n\n') == NOTHING


def test_an_empty_piece_does_not_end_a_line() -> None:
    assert read_stream(b'data:{"usage":{"prompt_tokens"', b"", b":4}}\r", b"", b"\n\r", b"\n", b"")[0] == 4


def test_an_endless_line_is_not_stored() -> None:
    reader = UsageFormat("openai").create_reader(BodyKind.STREAM)
    reader.feed(b": ")
    inner = reader.inner
    assert isinstance(inner, EventStreamReader)
    for _ in range(50):
        reader.feed(b"x" * 100_000)
    assert inner._event is None
    reader.feed(b"\ndata: ")
    for _ in range(50):
        reader.feed(b"x" * 100_000)
    assert inner._event is not None
    assert len(inner._event) <= 1 << 20


@pytest.mark.parametrize("kind", [BodyKind.LINES, BodyKind.JSON, BodyKind.STREAM])
def test_batch_results_are_read_by_line_for_any_content_type(kind: BodyKind) -> None:
    lines: list[dict[str, Value]] = []
    reader = UsageFormat("openai").create_reader(kind, lines.append)
    reader.feed(b"".join(compact({"model": "m", "usage": {"prompt_tokens": n}}) + b"\n" for n in (4, 5)))
    reader.finish()
    assert len(lines) == 2


def test_invalid_json_is_reported_as_unreadable() -> None:
    for body, is_readable in ((b"{}", True), (b"[]", True), (b"<html>", False), (b"{", False)):
        usage_format = UsageFormat("json")
        assert usage_format.read_json(body)[1] == is_readable
        reader = usage_format.create_reader(BodyKind.JSON)
        reader.feed(body)
        reader.finish()
        assert reader.is_readable == is_readable


# ---- long texts


def read_long(body: bytes, *, size: int, begin: int, end: int, format_: FormatName = "openai") -> StatedCounts:
    """Read a text in pieces of this size. Only its first and last bytes are stored."""
    usage_format = UsageFormat(format_)
    text, values = JsonText(begin, end), dict[str, bytes]()
    for at in range(0, len(body), size):
        text.add(body[at : at + size])
        assert len(text) <= begin + 3 * end
    for part in text.list_texts():
        assert usage_format._fields.read(part, values), bytes(part)
    return usage_format.compute_counts(values)


LONG = {"id": "x", "model": "m", "choices": [{"message": {"content": TEXT * 20}, "a": [[1, 2], {"b": {}}]}]}
AFTER = {"usage": CHAT_USAGE, "service_tier": "default", "list": [1, {"usage": 5}], "empty": {}}


@pytest.mark.parametrize("size", [1, 7, 100, 5000])
@pytest.mark.parametrize("begin", [8, 21, 34, 60, 112, 216, 398])
def test_the_ends_of_a_long_text_are_read(size: int, begin: int) -> None:
    assert json.loads(compact(LONG))
    counts = read_long(compact({**LONG, **AFTER}), size=size, begin=begin, end=500)
    assert list_counts(counts) == (19, 7, 12, 10, 29)
    assert counts.model == ("m" if begin >= 30 else None)
    nested = compact({"type": "response.completed", "response": {**LONG, **AFTER}, "sequence_number": 1})
    counts = read_long(nested, size=size, begin=begin + 60, end=500)
    assert counts.model == "m" if begin >= 30 else counts.model in ("m", None)
    parts = compact([{"candidates": ["x" * 1500]}, {"usageMetadata": {"promptTokenCount": 5}, "x": 1}])
    assert list_counts(read_long(parts, size=size, begin=begin, end=500, format_="gemini"))[0] == 5


json_texts = st.text(st.sampled_from('"\\{}[],:u🙂'), max_size=8)
json_values = st.recursive(
    st.none() | st.integers(0, 9) | json_texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(json_texts | st.just("usage"), inner, max_size=4),
    max_leaves=12,
)


def test_a_long_text_of_brackets_is_read_near_its_ends() -> None:
    """The reader finds members of the first two levels near the ends of the text."""
    dense = [[]] * (60 * TOKENS_MAX)
    for body, tokens in (
        ({"model": "m", "choices": dense, "usage": {"prompt_tokens": 4}}, 4),
        ({"model": "m", "response": {"output": dense, "usage": {"input_tokens": 4}}}, 4),
        ({"model": "m", "response": {"output": "x" * 10**6, "usage": {"input_tokens": 4}}}, 4),
        ({"model": "m", "usage": {"prompt_tokens": 4}, "choices": [dense, dense]}, 4),
    ):
        usage_format = UsageFormat("openai")
        reader = usage_format.create_reader(BodyKind.JSON)
        reader.feed(json.dumps(body).encode())
        reader.finish()
        counts = usage_format.compute_counts(reader.values)
        assert (list_counts(counts)[0], counts.model) == (tokens, "m")


@pytest.mark.parametrize("body", [b"}" * 100 + b"{" * 100, b"x" * 200, b'"' + b"x" * 200, b"{" * 200, b"," * 200])
def test_the_end_of_invalid_json_is_not_read(body: bytes) -> None:
    text = JsonText(20, 20)
    text.add(body)
    for part in [*text.list_texts()][1:]:
        assert not UsageFormat("openai").read_json(bytes(part))[1]


@given(
    st.dictionaries(json_texts, json_values, max_size=5),
    st.dictionaries(json_texts, json_values, max_size=5),
    st.integers(1, 30),
    st.integers(1, 120),
    st.integers(1, 120),
)
def test_the_ends_of_a_long_text_never_state_wrong_usage(
    before: dict[str, object], after: dict[str, object], size: int, begin: int, end: int
) -> None:
    """With any surroundings and any cut, the reader finds on the first level only values that are there."""
    body = compact({**before, "usage": {"prompt_tokens": 4}, **after})
    assert list_counts(read_long(body, size=size, begin=begin, end=end))[0] in (4, None)
    assert list_counts(read_long(body, size=size, begin=len(body), end=1))[0] == 4
    without = compact({**before, "output": {"usage": {"prompt_tokens": 4}}, **after})
    assert list_counts(read_long(without, size=size, begin=begin, end=end)) == NOTHING


def look_up(body: object, path: str) -> object:
    """Return the value at a path in a parsed body."""
    for key in path.split("."):
        body = body.get(key) if isinstance(body, dict) else None
    return body


PATHS = ("a", "a.b", "a.b.c", "b", "b.a")
nested = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 9) | st.floats(allow_nan=False, allow_infinity=False) | st.just("7"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.sampled_from("abc"), nested), st.booleans())
def test_numbers_are_found_as_by_a_json_parser(body: dict[str, object], is_stream: bool) -> None:
    written = json.dumps(body).encode()
    counts = read("json", b"data: %b\n\n" % written if is_stream else written, is_stream=is_stream, paths=PATHS)
    for path in PATHS:
        value = look_up(body, path)
        if value in ([], {}, ""):
            value = None  # An empty value states no usage.
        number = value if type(value) is int and value >= 0 else None
        assert counts.find_number(f"$.{path}") == number
        assert (counts.find_unreadable(f"$.{path}") is None) == (value is None or number is not None)


FRAGMENTS = (
    *(bytes([one]) for one in b'"\\{}[],:\r\n\xff\xc3 '),
    b"data:",
    b'"usage":{',
    b'"prompt_tokens":',
    b"\\ud800",
    b"4",
)


@given(st.lists(st.sampled_from(FRAGMENTS)), st.booleans(), st.integers(1, 9))
def test_no_input_raises_an_error(fragments: list[bytes], is_stream: bool, size: int) -> None:
    """No bytes may raise an error, because an error would cut the response."""
    body = b'data: {"model":"m"}\n\n' * is_stream + b"".join(fragments) + b"\n\n"
    counts = read("openai", *[body[at : at + size] for at in range(0, len(body), size)], is_stream=is_stream)
    assert set(str(list_counts(counts)[0])) in ({"4"}, set("None"))


def test_events_without_markers_are_skipped() -> None:
    named = b'data: {"model":"m","usage":null}\n\n'
    stated = b'data: {"usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7}}\n\n'
    filler = b"data: x\n\n" * 500 + b"\n\n" * 500 + b"data: [1,\ndata: 2]\r\n\r\n"
    usage = read("openai", named, filler + stated + filler + b"data: {", b"}\n\n", is_stream=True)
    alone = read("openai", named, stated, is_stream=True)
    assert list_counts(usage) == list_counts(alone)
    assert list_counts(usage)[0] is not None


def test_member_at_the_end_of_a_list_of_numbers_is_read() -> None:
    usage = b'{"model":"m","usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7}}'
    counts = read("openai", b"[" + b"1," * 50_000 + usage + b"]", is_stream=False)
    assert list_counts(counts) == list_counts(read("openai", usage, is_stream=False))
