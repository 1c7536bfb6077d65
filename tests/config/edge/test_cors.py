"""Which origins may be named, and what does not go together."""

import pytest
from pydantic_core import PydanticCustomError

from edgeproxy.config.edge.cors import read_header, read_origin
from tests.config.conftest import LEAST


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("*", "*"),
        ("https://App.Example.com", "https://app.example.com"),
        ("https://a.example:443", "https://a.example"),
        ("http://a.example:443", "http://a.example:443"),
        ("http://localhost:3000", "http://localhost:3000"),
        ("http://[::1]:80", "http://[::1]"),
        ("https://*.example.com:8443", "https://*.example.com:8443"),
        ("capacitor://localhost", "capacitor://localhost"),
    ],
)
def test_origin_is_normalized_as_browsers_send_it(written, read):
    assert read_origin(written) == read


@pytest.mark.parametrize(
    ("written", "what", "hint"),
    [
        ("null", "null is the origin of every sandboxed page and every local file", "name the origins of your own"),
        ("https://a.example/", "'https://a.example/' is not an origin", "without a path and a / at its end"),
        ("a.example", "'a.example' is not an origin", "an origin such as https://app.example.com, "
         "https://*.example.com, or *"),
        ("https://*.com", "'https://*.com' lets in every site below com",
         "name the domain too: https://*.example.com"),
    ],
)  # fmt: skip
def test_invalid_or_too_wide_cors_origin_is_refused(problems, written, what, hint):
    assert problems(LEAST + f"cors: {{origins: ['{written}']}}") == [f"edge.yaml:3: cors.origins.0: {what}, {hint}"]


@pytest.mark.parametrize("written", ["https://a b", "https://*", "https://a@b", "https://*.*.example.com", "//a.b", ""])
def test_invalid_origin_is_refused(written):
    with pytest.raises(PydanticCustomError):
        read_origin(written)


def test_any_field_is_a_star():
    assert (read_header("*"), read_header("X-Own")) == ("*", "X-Own")


def test_cookies_are_not_for_any_page(problems):
    text = LEAST + "cors: {origins: ['*', 'https://a.example'], credentials: yes}"
    assert problems(text) == [
        "edge.yaml:3: cors.origins: * is any origin already, leave it out, or the others",
        "edge.yaml:3: cors.credentials: would show every page what its visitors may see, name the origins instead of *",
    ]
    assert problems(LEAST + "cors: {origins: ['*'], credentials: no}") == []
    assert len(problems(LEAST + "cors: {origins: ['*'], credentials: perhaps}")) == 1
    assert len(problems(LEAST + "cors: {origins: '*', credentials: yes}")) == 1
    assert len(problems(LEAST + "cors: [a]")) == 1


def test_the_routes_of_a_path_say_the_same(problems):
    route = "{path: /a, upstream: api, methods: [%s]%s}"
    text = LEAST.splitlines()[0] + "\nroutes:\n  - " + route % ("GET", ", cors: off") + "\n  - " + route
    assert problems(text % ("PUT", "")) == [
        "edge.yaml:4: routes.1: has another cors than the route of its path at edge.yaml:3, write the same in both"
    ]
    assert problems(text % ("PUT", ", cors: off")) == []


def test_route_sets_its_own_cors_or_none(loaded):
    routes = "routes: [{path: /a, upstream: api, cors: {origins: ['*']}}, {path: /b, upstream: api, cors: off}]"
    one, other = loaded(LEAST.splitlines()[0] + "\n" + routes, alone=True).routes
    assert one.cors.origins == ("*",)
    assert other.cors == "off"
