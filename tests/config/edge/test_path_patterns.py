"""Regular expressions for paths: patterns that match in linear time are accepted, and others are refused."""

import re
from time import process_time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeproxy.config.edge.path_patterns import UnsafePatternError, compile_pattern
from tests.config.conftest import LEAST, Problems

SAFE = {
    "/users/([0-9]+)/(.*)": "/users/7/a/b",
    "/old/(.*)/edit": "/old/a/edit/edit",
    r"/(.+?)\.(png|jpg|jpeg|gif)": "/a.b.jpeg",
    r"^/blog/(?P<year>\d{4})/([a-z-]+)(\.html)?$": "/blog/2024/a-b.html",
    "(?:/v1/orders|/orders|/v1/o[^r].*)": "/v1/orders",
    "/(?:[a-z]+/)*[0-9]": "/a/b/7",
    "/(?:a|)b[^x]": "/b/",
    "/(?:a{2}b){1,3}/?": "/aabaab/",
    r"/[\w.]+(/[^\s\d]\D\S\W)?(?:a{0}b|c)": "/x/ab-.c",
}
UNSAFE = {
    "/(a+)+b": "has a repeat that may take `a`",
    "/(a|a)*": "has alternatives that may both go on with `a`",
    "/(a|ab)(c|bcd)": "has alternatives that may both go on with `b`",
    "/(?:a|)(?:a|)": "has alternatives that may both go on with `a`",
    "/(?:|)": "has alternatives that may both go on with the end",
    "/(.*)/(.*)": "has a repeat that may take `/`",
    "/.*.{0,65}": "has a repeat that may take `/`",
    "/.*(?:(a)|(b)|(c)|(d)|(e)){13}!": "has a repeat that may take `a`",
    "/(.*)x{65}": "has a repeat that may take `x`",
    "/(?:ab)?abc": "has a repeat that may take `a`",
    "/(.*b|c)b": "has a repeat that may take `b`",
    "/(?:.*b)*": "has a repeat that may take `b`",
    "/(x*)*": "repeats a part that may be empty",
    "(?i)/a": "has a flag",
    "/(?i:a)": "has a flag",
    "/(a)\\1": "has a back-reference",
    "/(a)?(?(1)b)": "has a condition",
    "/(?=a)": "has a lookaround",
    "/(?<!a)": "has a lookaround",
    "/a$b": "has an anchor inside",
    "/(?>a)": "has an atomic group",
    "/a*+": "has a possessive repeat",
    "/é": "has characters beyond ASCII",
    "/(": "is no regular expression",
    "/a{99999999999}": "is no regular expression",
    "/" + "a" * 300: "has 301 characters",
}


@pytest.mark.parametrize("pattern", SAFE)
def test_deterministic_pattern_is_accepted_and_matches(pattern: str) -> None:
    assert compile_pattern(pattern).fullmatch(SAFE[pattern].encode())


@pytest.mark.parametrize("pattern", UNSAFE)
def test_pattern_that_may_backtrack_or_is_not_understood_is_refused(pattern: str) -> None:
    with pytest.raises(UnsafePatternError, match="^" + re.escape(UNSAFE[pattern])):
        compile_pattern(pattern)


def test_groups_in_groups_are_as_many_as_characters_allow() -> None:
    assert compile_pattern("(" * 149 + "a" + ")" * 149).fullmatch(b"a")


ATOMS = st.sampled_from(("a", "b", "/", ".", "[ab]", "[^a]", "[^/]", "ab", "a/"))
PATTERNS = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.lists(inner, min_size=2, max_size=4).map("".join),
        st.lists(inner, min_size=2, max_size=3).map(lambda each: f"({'|'.join(each)})"),
        st.tuples(inner, st.sampled_from(("*", "+", "?", "*?", "{1,3}", "{2,}"))).map(
            lambda each: f"({each[0]}){each[1]}"
        ),
        st.tuples(ATOMS, st.sampled_from(("*", "+", "?", "+?"))).map("".join),
    ),
    max_leaves=8,
)


@settings(max_examples=4 * settings().max_examples)
@given(PATTERNS, st.text("ab/", min_size=1, max_size=4), st.text("ab/x", max_size=3))
def test_accepted_pattern_matches_in_linear_time(pattern: str, word: str, end: str) -> None:
    """At this length a quadratic match takes ten seconds, and an exponential one never ends; 8 KiB are allowed."""
    try:
        compiled = compile_pattern(pattern)
    except UnsafePatternError:
        return
    path = (word * (1 << 16))[: 1 << 16] + end
    begin = process_time()
    compiled.fullmatch(path.encode())
    assert process_time() - begin < 2


@pytest.mark.parametrize(
    ("rewrite", "expected"),
    [
        ("{regex: '/(a)', replacement: '/{1}/{0}'}", []),
        ("{regex: '/(?P<id>a)', replacement: '/{{{id}}}'}", []),
        ("{regex: '/(a)'}", ["is useless without replacement"]),
        ("{replacement: /a}", ["is useless without regex"]),
        ("{regex: '/a', replacement: /b, strip: /, prefix: /c}", ["cannot be beside regex"] * 2),
        ("{regex: '/a', replacement: '/{1}'}", ["has {1}, and regex has no such group"]),
        ("{regex: '/a', replacement: '/{id}'}", ["has {id}, and regex has no such group"]),
        ("{regex: '(a+)+', replacement: '/{1}'}", ["has a repeat that may take `a`, and so may what follows"]),
        ("{regex: '/a', replacement: '/{a-b}'}", ["has the capture 'a-b', which cannot be"]),
        ("{regex: '/a', replacement: '/a}'}", ["has the capture '}', which cannot be"]),
        ("{regex: '/a', replacement: '/a?b'}", ["'/a?b' is not a path of this form"]),
        ("{regex: '/a', replacement: '/a/../b'}", ["'/a/../b' is not a path of this form"]),
        ("{regex: '/(a)', replacement: '" + "/{1}" * 11 + "'}", ["has 11 captures"]),
    ],
)
def test_rewrite_by_expression_is_checked(problems: Problems, rewrite: str, expected: list[str]) -> None:
    text = LEAST.replace("upstream: api}", f"upstream: api, rewrite: {rewrite}}}")
    reported = problems(text)
    assert len(reported) == len(expected)
    assert all(message in line for message, line in zip(expected, reported, strict=True)), reported
