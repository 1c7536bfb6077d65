"""The edge asks for usage in streams: the changed request, and the stream without the additional event."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.edge.body_usage.stream_options import EVENT_BYTES_MAX, UsageEventFilter, ask_for_usage, is_readable
from tests.edge.body_usage.transcripts import CHAT_STREAM, CHAT_USAGE, chat_chunk, events

USAGE_EVENT = events(chat_chunk({}, choices=[], usage=CHAT_USAGE))
assert CHAT_STREAM.count(USAGE_EVENT) == 1
WITHOUT = CHAT_STREAM.replace(USAGE_EVENT, b"")
ASKED = {"include_usage": True}


@pytest.mark.parametrize(
    "body",
    [
        b'{"stream":true}',
        b'{"stream":true,"n":1e400,"tools":[{"properties":{"stream":{"type":"boolean"},"stream_options":{}}}]}',
        b' {"stream" : true , "n": 1e400, "messages": [{"content": "\\u00e9 \\"stream\\": false"}]}\r\n',
    ],
)
def test_request_without_stream_options_gets_only_include_usage(body: bytes) -> None:
    asking = ask_for_usage(body)
    assert asking is not None
    assert asking.startswith(body.rstrip()[:-1])
    expected = json.loads(body)
    assert json.loads(asking) == {**expected, "stream_options": ASKED}
    assert ask_for_usage(asking) is None


@pytest.mark.parametrize(
    ("options", "asked"),
    [
        ("null", ASKED),
        ("{}", ASKED),
        ('{"include_usage": false, "x": 1.0}', {"include_usage": True, "x": 1.0}),
        ('{"include_usage": null}', ASKED),
    ],
)
def test_present_stream_options_are_preserved_without_duplicate_keys(options: str, asked: object) -> None:
    asking = ask_for_usage(b'{"model": "m", "stream_options": %b, "stream": true, "n": 1.50}' % options.encode())
    assert asking is not None
    assert json.loads(asking) == {"model": "m", "stream_options": asked, "stream": True, "n": 1.5}
    assert (asking.count(b'"stream_options"'), asking.count(b"1.50")) == (1, 1)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[]",
        b'{"stream":false}',
        b'{"x":{"stream":true}}',
        b'{"stream":true,"stream_options":{"include_usage":true}}',
        b'{"stream":true,"stream_options":[]}',
        b'{"stream":true,"stream_options":7}',
        b'{"stream":true',
        b'{"stream":true,"x":"\xff"}x',
        b'{"stream":true,"stream_options":{"include_usage":true},"tools":[{"stream":1,"include_usage":0}]}',
        b'{"stream":false,"tools":[{"stream":true}]}',
        b'{"stream":true,"stream_options":{"include_usage":true,"x":{"include_usage":0}},"tools":["stream_options"]}',
        b'{"stream":true,"stream_options":{"include_usage":true},"x":NaN}',
        b'{"stream":true,"x":' + b"[" * 100_000,
        b"\x1f\x8b\x08\x00",
    ],
)
def test_any_other_request_stays_as_it_is(body: bytes) -> None:
    assert ask_for_usage(body) is None


@pytest.mark.parametrize(
    "body",
    [
        *[b'{"stream":%b}' % true for true in (b'"true"', b"1", b"1.0", b'"on"', b'" YES "', b"[0]", b"2")],
        b'\xef\xbb\xbf{"stream":true}',
        '{"stream":true}'.encode("utf-16"),
        b'{"stream":true,"x":NaN}',
        b'{"stream":true,"x":-Infinity,"user":"\\ud800"}',
        b'{"STREAM":true}',
        b'{"stream":false,"Stream":1}',
        b'{"stream":1,"stream_options":{"include_usage":0,"y":2}}',
        # Decoders in Go fold the case of keys as Unicode does, and ignore what stands behind the object.
        '{"\u017ftream":true}'.encode(),
        b'{"stream":true,"stream_options":{"include_usage":true},"Stream_Options":{"include_usage":false}}',
        b'{"stream":true,"STREAM_OPTIONS":{"include_usage":false}}',
        b'{"stream":true,"stream_options":{"include_usage":true,"Include_Usage":false}}',
        b'{"stream":true}}',
        b'{"stream":true} {"stream":false}',
        # Of a key that is there twice some readers take the first one.
        b'{"stream": false, "stream": true}',
        b'{"stream":true,"stream":false}',
        b'{"stream":true,"stream_options":{"include_usage":false,"include_usage":true}}',
        b'{"stream":true,"stream_options":{"include_usage":false},"stream_options":{"include_usage":true}}',
    ],
)
def test_stream_in_a_form_that_services_read_asks_for_its_usage(body: bytes) -> None:
    asking = ask_for_usage(body)
    assert asking is not None
    members = json.loads(asking)
    assert (members["stream"], members["stream_options"]["include_usage"]) == (True, True)
    assert [key for key in members if key.casefold().startswith("stream")] == ["stream", "stream_options"]
    assert all(asking.count(b'"%b"' % name) == 1 for name in (b"stream", b"stream_options", b"include_usage"))
    assert ask_for_usage(asking) is None


@pytest.mark.parametrize("false", ['"false"', "0", '"no"', '""'])
def test_stream_in_a_form_of_false_is_false_for_every_service(false: str) -> None:
    asking = ask_for_usage(b'{"stream":%b,"a":1}' % false.encode())
    assert asking is not None
    assert json.loads(asking) == {"stream": False, "a": 1}


@given(st.binary(max_size=60), st.integers(0, 15))
def test_no_bytes_raise_anything(noise: bytes, at: int) -> None:
    body = b'{"stream":true}'
    ask_for_usage(noise)
    ask_for_usage(body[:at] + noise + body[at:])
    filtered = UsageEventFilter()
    assert filtered.feed([noise]) + filtered.end() == noise


def filtered(*pieces: bytes) -> bytes:
    taking = UsageEventFilter()
    return b"".join([taking.feed([piece]) for piece in pieces]) + taking.end()


def line_ends(stream: bytes, end: bytes) -> bytes:
    return stream.replace(b"\n", end)


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_the_event_of_usage_is_taken_out_at_every_split(end: bytes) -> None:
    stream, without = line_ends(CHAT_STREAM, end), line_ends(WITHOUT, end)
    for at in range(len(stream) + 1):
        assert filtered(stream[:at], stream[at:]) == without, at
    assert filtered(*[stream[at : at + 1] for at in range(len(stream))]) == without
    assert UsageEventFilter().feed([stream], last=True) == without


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_usage_filter_passes_each_other_event_at_its_end(end: bytes) -> None:
    taking = UsageEventFilter()
    for event in re.findall(rb".*?" + end * 2, line_ends(CHAT_STREAM, end), re.DOTALL):
        assert taking.feed([event[: -len(end)]]) == b""
        assert taking.feed([end]) == (b"" if event == line_ends(USAGE_EVENT, end) else event)


def test_comments_pass_at_once() -> None:
    taking = UsageEventFilter()
    assert taking.feed([b": processing\n"]) == b": processing\n"
    assert taking.feed([b": more\r\n: "]) == b": more\r\n"
    assert taking.feed([b"x\n\n" + USAGE_EVENT]) == b": x\n\n"


@pytest.mark.parametrize(
    "event",
    [
        events(chat_chunk({"content": "x"}, usage=CHAT_USAGE)),
        events({"choices": [], "prompt_filter_results": [{"a_tokens": 1}]}),
        events({"choices": [], "usage": None, "note": '"_tokens"'}),
        events({"choices": [], "usage": [CHAT_USAGE]}),
        b'data: {"choices":[],"usage":{"a_tokens":\n\n',
        b': {"choices":[],"usage":{"a_tokens":1}}\n\n',
        b'data: {"choices":[],"usage":{"a_tokens":1},"x":"%b"}\n\n' % (b"y" * EVENT_BYTES_MAX),
        b'data: {"choices":[],"usage":{"a_tokens":1}}\n',
    ],
    ids=["with a choice", "no usage", "null", "list", "broken", "comment", "long", "not ended"],
)
def test_stream_filter_passes_events_other_than_usage(event: bytes) -> None:
    for size in (1, 7, 1000, len(event)):
        assert filtered(*[event[at : at + size] for at in range(0, len(event), size)]) == event
    assert filtered(event + b"data: 1\n\n") == event + b"data: 1\n\n"


def test_a_long_event_is_not_held() -> None:
    taking, long = UsageEventFilter(), b"data: " + b"x" * EVENT_BYTES_MAX
    assert taking.feed([long]) == long
    assert taking.feed([b"y\n"]) == b"y"
    assert taking.feed([b"\n"]) == b"\n\n"
    assert taking.feed([USAGE_EVENT]) == b""


def test_data_over_several_lines_are_one_text() -> None:
    assert filtered(b'event: message\ndata:{"choices":[],\ndata: "usage":{"prompt_tokens":1}}\n\ndata: 1\n\n') == (
        b"data: 1\n\n"
    )


def test_body_is_readable_if_a_strict_or_lenient_parser_accepts_it() -> None:
    bodies = (b'{"stream": true}', b'{"n": NaN}', b"[NaN]", b"no JSON", b'{"a":' * 5000)
    assert [is_readable(body) for body in bodies] == [True, True, False, False, False]


def test_stream_of_a_body_that_is_no_object_is_not_asked() -> None:
    assert ask_for_usage(b"[1]") is None
    assert ask_for_usage(b"[NaN]") is None


def test_odd_body_that_wants_no_stream_is_not_changed() -> None:
    assert ask_for_usage(b'{"stream": false, "n": NaN}') is None
    assert ask_for_usage(b'{"stream": null} x') is None


@pytest.mark.parametrize("options", [b"", b',"stream_options":{"include_usage":true}', b',"Stream_Options":{"x":1}'])
def test_odd_non_stream_body_preserves_its_options(options: bytes) -> None:
    asking = ask_for_usage(b'{"stream":0%b,"tools":[{"stream":true}]}' % options)
    assert asking is not None
    members = json.loads(asking)
    assert members.pop("stream") is False
    kept = {} if not options else {"stream_options": json.loads(b"{%b}" % options[1:]).popitem()[1]}
    assert members == {"tools": [{"stream": True}], **kept}
