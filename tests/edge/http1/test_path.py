"""The one path rule."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.edge.errors import RejectedError
from edgeproxy.edge.http1 import grammar
from edgeproxy.edge.http1.path import is_plain, list_readings, normalize_target

RESOLVED = [
    ("RFC 9112 3.2.4", b"*", b"*"),
    ("RFC 3986 3.3", b"/", b"/"),
    ("RFC 3986 3.3 a path", b"/a/b.c/d", b"/a/b.c/d"),
    ("RFC 3986 3.4 a query is left alone", b"/a?b=/../%2e%2F%zz&c=\\", b"/a?b=/../%2e%2F%zz&c=\\"),
    ("RFC 3986 3.4 an empty query", b"/a?", b"/a?"),
    ("RFC 3986 5.2.4", b"/a/b/c/./../../g", b"/a/g"),
    ("RFC 3986 5.2.4 at the end", b"/a/b/.", b"/a/b/"),
    ("RFC 3986 5.2.4 up at the end", b"/a/b/..", b"/a/"),
    ("RFC 3986 5.2.4 down to the root", b"/a/..", b"/"),
    ("RFC 3986 5.2.4 here", b"/.", b"/"),
    ("RFC 3986 5.2.4 an empty segment is one", b"/a//../b", b"/a/b"),
    ("RFC 3986 5.2.4 three dots are a name", b"/.../..a/.b", b"/.../..a/.b"),
    ("RFC 3986 3.3 two slashes", b"//a///b/", b"//a///b/"),
    ("RFC 3986 3.3 two slashes after dots", b"/.//a", b"//a"),
    ("RFC 3986 6.2.2.2 unreserved", b"/%41%7a%30%2D%2e%5f%7E", b"/Az0-._~"),
    ("RFC 3986 6.2.2.1 upper case", b"/%c3%a9%20%3f%23%25", b"/%C3%A9%20%3F%23%25"),
    ("RFC 3986 6.2.2.2 then 6.2.2.3", b"/v1/%2e%2E/x", b"/x"),
    ("RFC 3986 2.4 undone once only", b"/%252e%252e/%2541", b"/%252e%252e/%2541"),
    ("RFC 3986 6.2.2 with a query", b"/%61/../b?%61", b"/b?%61"),
    ("RFC 8615", b"/.well-known/x", b"/.well-known/x"),
    ("RFC 3986 3.3 parameters", b"/a;b=c/d", b"/a;b=c/d"),
    ("RFC 3986 2.2 an escaped slash is data", b"/a%2fb/%2F/c%2F", b"/a%2Fb/%2F/c%2F"),
]


@pytest.mark.parametrize(("rule", "target", "resolved"), RESOLVED, ids=[case[0] for case in RESOLVED])
def test_request_path_is_normalized(rule: str, target: bytes, resolved: bytes) -> None:
    assert normalize_target(target) == resolved


REFUSED = [
    ("RFC 3986 5.2.4 above the root", b"/.."),
    ("RFC 3986 5.2.4 above the root, then down", b"/../a"),
    ("RFC 3986 5.2.4 above the root, later", b"/a/../../b"),
    ("RFC 3986 5.2.4 above the root, escaped", b"/%2E%2e/b"),
    ("RFC 3986 2.2 dots before an escaped slash", b"/a/..%2fb"),
    ("RFC 3986 2.2 dots behind an escaped slash", b"/a%2F%2e%2E/b"),
    ("RFC 3986 2.2 a dot between escaped slashes", b"/a%2f.%2fb"),
    ("RFC 3986 2.2 dots with parameters behind one", b"/a;b%2F..;c/d"),
    ("RFC 3986 2.2 escaped backslash", b"/a%5cb"),
    ("RFC 3986 7.3 escaped NUL", b"/a%00"),
    ("RFC 3986 2.1 malformed", b"/a%zz"),
    ("RFC 3986 2.1 one digit", b"/a%4"),
    ("RFC 3986 2.1 none", b"/a%"),
    ("RFC 3986 2.1 two signs", b"/a%%41"),
    ("RFC 3986 3.3 backslash", b"/a\\..\\b"),
    ("RFC 3986 2 space", b"/a b"),
    ("RFC 3986 2 not ASCII", b"/\xc3\xa9"),
    ("RFC 3986 3.5", b"/a#b"),
    ("RFC 3986 2 control character in a query", b"/a?\r\n"),
    ("RFC 3986 3.3 no slash", b"a"),
    ("RFC 3986 3.3 nothing", b""),
    ("RFC 9112 3.2.4 not alone", b"*?a"),
    ("RFC 3986 3.3 dots with parameters", b"/a/..;x/b"),
    ("RFC 3986 3.3 a dot with parameters", b"/a/.;/b"),
    ("RFC 3986 2.2 dots with escaped parameters", b"/a/..%3bx/b"),
    ("RFC 3986 2.2 dots with escaped parameters behind an escaped slash", b"/a%2F..%3B/b"),
]


@pytest.mark.parametrize(("rule", "target"), REFUSED, ids=[case[0] for case in REFUSED])
def test_a_path_that_servers_could_read_differently_is_refused(rule: str, target: bytes) -> None:
    with pytest.raises(RejectedError) as refusal:
        normalize_target(target)
    assert refusal.value.status == 400


SEGMENTS = st.sampled_from(
    (
        *(b"", b".", b"..", b"...", b"a", b"b.c", b"%2e", b"%2E%2e", b".%2e", b"%252e", b"%61", b"%C3%a9", b";x"),
        *(b"..;x", b"%2f", b"%5C", b"%00", b"%", b"%4", b"*", b"\\", b"%2e%2e;x", b"..%3b", b"%25", b"%25%32%65"),
    )
)
TARGETS = st.one_of(
    st.lists(SEGMENTS, min_size=1, max_size=8).map(lambda segments: b"/" + b"/".join(segments)),
    st.lists(st.sampled_from([bytes([byte]) for byte in b"/.%2eE5cC0?;a\\"]), max_size=12).map(
        lambda parts: b"/" + b"".join(parts)
    ),
)


@given(TARGETS)
def test_normalizing_a_target_is_idempotent_and_leaves_no_dot_segments(target: bytes) -> None:
    try:
        resolved = normalize_target(target)
    except RejectedError:
        return
    assert normalize_target(resolved) == resolved
    path, _, query = resolved.partition(b"?")
    assert query == target.partition(b"?")[2]
    segments = path.split(b"/")
    assert segments[0] == b""
    assert not {b".", b".."} & set(segments)
    for reading in list_readings(path):
        assert normalize_target(reading) == reading, "an unescaped slash yields no dot segment"
    assert not path.translate(None, grammar.TARGET)
    for escape in re.findall(rb"%.{0,2}", path):
        code = int(escape[1:], 16)
        assert escape == b"%%%02X" % code
        assert chr(code) not in "\\\0"
        assert not re.fullmatch(rb"[A-Za-z0-9._~-]", bytes([code]))


@given(TARGETS)
def test_a_plain_path_stays_as_it_is(target: bytes) -> None:
    if is_plain(target.partition(b"?")[0]) and not target.translate(None, grammar.TARGET):
        assert normalize_target(target) == target


@given(TARGETS, TARGETS)
def test_normalization_does_not_depend_on_earlier_targets(one: bytes, other: bytes) -> None:
    def outcome(target: bytes) -> bytes | int:
        try:
            return normalize_target(target)
        except RejectedError as refusal:
            return refusal.status

    before = outcome(one)
    outcome(other)
    assert outcome(one) == before
