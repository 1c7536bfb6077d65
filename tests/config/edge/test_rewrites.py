"""The fields that a route may change, and the fields that it must not change."""

import pytest
from pydantic_core import PydanticCustomError

from edgeproxy.config.edge.compression import Compress
from edgeproxy.config.edge.rewrites import (
    read_base,
    read_content,
    read_fixed_status,
    read_redirect_status,
    read_redirect_target,
    read_request_field,
    read_response_field,
    read_set_request_field,
    read_set_response_field,
    read_template,
    read_value,
)
from edgeproxy.config.edge.stamps import STAMPS
from edgeproxy.edge.http1.fields import REQUEST, RESPONSE, FieldKind
from tests.config.conftest import LEAST

UPSTREAM = LEAST.splitlines()[0] + "\n"

OURS = (
    FieldKind.STAMP,
    FieldKind.ORIGIN,
    FieldKind.FORWARDED_FOR,
    FieldKind.FORWARDED_PROTO,
    FieldKind.FORWARDED_HOST,
    FieldKind.REQUEST_ID,
    FieldKind.HOST,
    FieldKind.LENGTH,
    FieldKind.CODING,
    FieldKind.CONNECTION,
    FieldKind.UPGRADE,
    FieldKind.TE,
    FieldKind.EXPECT,
    FieldKind.MAX_FORWARDS,
    FieldKind.TRACEPARENT,
)
THEIRS = (
    FieldKind.STAMP,
    FieldKind.LENGTH,
    FieldKind.CODING,
    FieldKind.CONNECTION,
    FieldKind.UPGRADE,
    FieldKind.RATE,
    FieldKind.DATE,
)


@pytest.mark.parametrize("name", [name.decode() for name, kind in REQUEST.items() if kind in OURS])
def test_rewrite_of_request_stamps_is_refused(name):
    for spelling in (name, name.title(), name.replace("-", "_"), name.replace("-", ".")):
        with pytest.raises(PydanticCustomError):
            read_request_field(spelling)
    assert {stamp.lower() for stamp in STAMPS} <= {each for each, kind in REQUEST.items() if kind is FieldKind.STAMP}


@pytest.mark.parametrize("name", [name.decode() for name, kind in RESPONSE.items() if kind in THEIRS])
def test_rewrite_of_response_stamps_is_refused(name):
    with pytest.raises(PydanticCustomError):
        read_response_field(name.title())


def test_how_content_is_coded_is_no_ones_to_claim():
    for name in ("Content-Encoding", "Content-Range", "Access-Control-Allow-Origin", "X-RateLimit-Limit"):
        with pytest.raises(PydanticCustomError):
            read_response_field(name)


def test_other_fields_may_be_changed():
    for name in ("Authorization", "Cookie", "Via", "X-Own", "Server"):
        assert read_request_field(name) == read_response_field(name) == name
    for read in (read_set_request_field, read_set_response_field):
        assert read("X-Own") == "X-Own"
        with pytest.raises(PydanticCustomError):
            read("Via")


@pytest.mark.parametrize("value", ["a\r\nB: c", "a\n", "a\0", "", " a", "a ", "ä", "x" * 1001])
def test_no_value_ends_its_line(value):
    with pytest.raises(PydanticCustomError):
        read_value(value)


def test_printable_field_value_is_read_unchanged():
    for value in ("a", 'a b\tc; d="e"', "x" * 1000):
        assert read_value(value) == value


def test_a_base_has_no_slash_at_its_end():
    assert [read_base(written) for written in ("", "/", "/api/", "/a/b")] == ["", "", "/api", "/a/b"]
    for written in ("api", "//", "/a//b", "/a?b", "/a%20b", "/a/../b", "/./a", "/a\\b", "/a b"):
        with pytest.raises(PydanticCustomError):
            read_base(written)


def test_a_redirect_leads_to_one_place():
    for place in ("https", "https://a.example", "http://a.example:81/b/*", "/b?c=d", "/*"):
        assert read_redirect_target(place) == place
    for place in (
        "",
        "//evil",
        "/\\evil",
        "https://a.example*",
        "/new*",
        "javascript:a",
        "https://u@a/",
        "/a b",
        "/*/b",
    ):
        with pytest.raises(PydanticCustomError):
            read_redirect_target(place)


def test_statuses_and_content_are_bounded():
    assert (read_redirect_status("301"), read_redirect_status(308), read_fixed_status("410")) == (301, 308, 410)
    for read, written in (
        (read_redirect_status, "300"), (read_fixed_status, "304"), (read_fixed_status, "199"),
        (read_content, "x" * 65537),
    ):  # fmt: skip
        with pytest.raises(PydanticCustomError):
            read(written)
    assert read_content("") == ""


@pytest.mark.parametrize(
    ("route", "problem"),
    [
        ("{path: /a}", "routes.0: has no upstream, write upstream: api"),
        ("{path: /a, redirect: https}", "routes.0: has no upstream, write upstream: api"),
        ("{path: /a, redirect: /b, respond: {}}",
         "routes.0.respond: cannot be given where there is a redirect, leave one of them out"),
        ("{path: /a, upstream: api, respond: {}}",
         "routes.0.upstream: is never asked where there is respond, leave one of them out"),
        ("{path: /a, redirect: {to: /b/*}}",
         "routes.0.redirect: has a * and the route no prefix, write path: /old/*, or no *"),
        ("{path: /a/*, redirect: /a/b/*}", "routes.0.redirect: leads back to the same route, lead it elsewhere"),
        ("{path: /a/*, redirect: '/a?b'}", "routes.0.redirect: leads back to the same route, lead it elsewhere"),
        ("{path: /a, redirect: /a}", "routes.0.redirect: leads back to the same route, lead it elsewhere"),
        ("{path: /ab/*, upstream: api, rewrite: {strip: /a}}",
         "routes.0.rewrite.strip: /ab/* does not begin with it, name its first segments"),
        ("{path: /a, upstream: api, rewrite: {request: {set: {X-Customer_Id: b}}}}",
         "routes.0.rewrite.request.set.X-Customer_Id: 'X-Customer_Id' cannot be changed, "
         "upstreams rely on what the edge says in it"),
        ("{path: /a, upstream: api, rewrite: {response: {remove: [Access-Control-Max-Age]}}}",
         "routes.0.rewrite.response.remove.0: 'Access-Control-Max-Age' cannot be changed, use cors"),
    ],
)  # fmt: skip
def test_unworkable_rewrite_names_the_fault(problems, route, problem):
    assert problems(f"{UPSTREAM}routes: [{route}]") == [f"edge.yaml:2: {problem}"]


@pytest.mark.parametrize(
    "route",
    [
        "{path: /a, redirect: /a/b}",
        "{path: /a, upstream: api, redirect: https}",
        "{path: /a/*, redirect: {to: 'https://b.example/a/*', status: 301}}",
        "{path: /a, respond: {status: 204}}",
        "{path: /a/*, redirect: /a}, {path: /a, upstream: api}",
        "{path: /a, upstream: api, rewrite: {strip: /a, prefix: /b}}",
        "{path: /a/b/*, upstream: api, rewrite: {strip: /a/}}",
        "{path: /*, upstream: api, rewrite: {strip: /}}",
        "{path: /a, upstream: api, rewrite: {response: {set: {X-A: b}, remove: [Via]}, request: {remove: [Via]}}}",
    ],
)
def test_valid_rewrite_passes(problems, route):
    assert problems(f"{UPSTREAM}routes: [{route}]") == []


def test_other_shapes_are_left_to_the_models(problems):
    odd = "[{path: [a], upstream: api, rewrite: {strip: [b]}, redirect: {to: [c]}}]"
    assert len(problems(f"{UPSTREAM}routes: {odd}")) == 3


def test_the_endpoints_of_an_upstream_have_one_path(problems, loaded):
    text = "upstreams: {api: {endpoints: ['http://a:1/x', {url: 'http://b:1', path: /x/}, 'http://c:1%s']}}\n"
    routes = LEAST.splitlines()[1]
    assert problems(text % "" + routes) == [
        "edge.yaml:1: upstreams.api.endpoints.2: has another path than edge.yaml:1, "
        "requests are the same wherever they go: write the same path in both"
    ]
    endpoints = loaded(text % "/x/" + routes, alone=True).upstreams["api"].endpoints
    assert [(endpoint.url, endpoint.path) for endpoint in endpoints] == [
        ("http://a:1", "/x"), ("http://b:1", "/x"), ("http://c:1", "/x"),
    ]  # fmt: skip


def test_compress_setting_accepts_media_types_only(loaded, problems):
    text = UPSTREAM + "routes: [{path: /a, upstream: api, compress: %s}]"
    assert loaded(text % "on", alone=True).routes[0].compress == Compress()
    assert loaded(text % "off", alone=True).routes[0].compress is None
    assert loaded(text % "{types: [Text/*]}", alone=True).routes[0].compress.types == ("text/*",)
    assert problems(text % "{types: [text]}") == [
        "edge.yaml:2: routes.0.compress.types.0: 'text' is not a media type, a type such as application/json, or text/*"
    ]


@pytest.mark.parametrize("value", ["plain", "{client.address}", "{header.X-Tenant}-{{x}}", "{request.id}" * 10])
def test_values_may_have_variables(value: str) -> None:
    assert read_template(value) == value


@pytest.mark.parametrize(
    "value", ["{", "a}", "{}", "{client}", "{header.}", "{header.a b}", "{{{}}}", "{request.id}" * 11]
)
def test_unknown_variable_is_refused(value: str) -> None:
    with pytest.raises(PydanticCustomError, match="variable"):
        read_template(value)
