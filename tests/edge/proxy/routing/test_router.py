"""The router: hosts by class, then paths by how much they say, then methods."""

from typing import NamedTuple

import pytest

from edgeproxy.config.edge.paths import Paths
from edgeproxy.edge.errors import RejectedError
from edgeproxy.edge.proxy.routing.path_rules import PathRules
from edgeproxy.edge.proxy.routing.router import Router
from tests.support.transcript import GET


class Leads(NamedTuple):
    """A route as the router sees it; `to` tells one from another."""

    to: str
    path: bytes
    host: bytes | None = None
    methods: frozenset[bytes] | None = None
    is_flagged: bool = False
    conditions: None = None


def methods(*names: bytes) -> frozenset[bytes]:
    return frozenset(names)


def found(routes: list[Leads], host: bytes | None, path: bytes, method: bytes = b"GET") -> str:
    return Router(routes).find_site(host).match(path, method, GET).to


def refusal(routes: list[Leads], host: bytes | None, path: bytes, method: bytes = b"GET") -> RejectedError:
    with pytest.raises(RejectedError) as raised:
        found(routes, host, path, method)
    return raised.value


# ---- paths


def test_exact_path_matches_only_itself() -> None:
    routes = [Leads("exact", b"/v1/status")]
    assert found(routes, b"h", b"/v1/status") == "exact"
    for other in (b"/v1/status/", b"/v1/status/x", b"/v1/statu", b"/v1/Status", b"/"):
        assert refusal(routes, b"h", other).status == 404


def test_prefix_route_matches_its_bare_path_and_subpaths() -> None:
    routes = [Leads("prefix", b"/v1/*")]
    for path in (b"/v1", b"/v1/", b"/v1/a/b/c", b"/v1//"):
        assert found(routes, b"h", path) == "prefix"
    for other in (b"/v10/a", b"/v10", b"/v", b"/", b"*"):
        assert refusal(routes, b"h", other).status == 404


def test_exact_route_wins_over_the_bare_path_of_a_prefix() -> None:
    """Not even from one of fewer methods, or of a wider host."""
    gets = Leads("own", b"/v1", methods=methods(b"GET"))
    for host in (None, b"h.test", b"*.test"):
        routes = [Leads("prefix", b"/v1/*", host), gets]
        for order in (routes, routes[::-1]):
            assert found(order, b"h.test", b"/v1") == "own"
            assert refusal(order, b"h.test", b"/v1", b"POST").status == 405
            assert found(order, b"h.test", b"/v1/", b"POST") == "prefix"


def test_prefix_route_takes_its_bare_path_before_wider_routes() -> None:
    """It may ask for less."""
    routes = [Leads("admin", b"/admin/*", b"h.test"), Leads("all", b"/*", b"h.test"), Leads("own", b"/admin")]
    assert found(routes, b"h.test", b"/admin") == "admin"
    assert found(routes, b"other.test", b"/admin") == "own"


def test_bare_prefix_path_is_routed_like_its_subpaths() -> None:
    routes = [
        Leads("reads", b"/v1/*", methods=methods(b"GET")),
        Leads("writes", b"/v1/*", methods=methods(b"POST")),
        Leads("nearer", b"/v1/*", b"h.test", methods=methods(b"PUT")),
        Leads("all", b"/*"),
    ]
    for path in (b"/v1", b"/v1/"):
        assert found(routes, b"other.test", path, b"GET") == "reads"
        assert found(routes, b"other.test", path, b"POST") == "writes"
        assert refusal(routes, b"other.test", path, b"PUT").status == 405
        assert found(routes, b"h.test", path, b"PUT") == "nearer"
        assert refusal(routes, b"h.test", path, b"GET").status == 405


def test_the_root_prefix_matches_everything() -> None:
    assert found([Leads("all", b"/*")], None, b"/") == "all"
    assert found([Leads("all", b"/*")], None, b"/a/b") == "all"


def test_longest_route_prefix_wins_in_any_order() -> None:
    routes = [Leads("root", b"/*"), Leads("long", b"/v1/orders/*"), Leads("short", b"/v1/*")]
    for order in (routes, routes[::-1]):
        assert found(order, None, b"/v1/orders/7") == "long"
        assert found(order, None, b"/v1/orders") == "long"
        assert found(order, None, b"/v1/order") == "short"
        assert found(order, None, b"/v2/") == "root"


def test_exact_path_wins_over_a_matching_prefix() -> None:
    routes = [Leads("prefix", b"/v1/*"), Leads("exact", b"/v1/status")]
    assert found(routes, None, b"/v1/status") == "exact"
    assert found(routes, None, b"/v1/statuses") == "prefix"


def test_two_prefixes_of_one_length_do_not_hide_each_other() -> None:
    routes = [Leads("a", b"/aa/*"), Leads("b", b"/bb/*")]
    assert found(routes, None, b"/aa/1") == "a"
    assert found(routes, None, b"/bb/1") == "b"


def test_options_star_is_a_path_of_its_own() -> None:
    assert found([Leads("star", b"*")], None, b"*", b"OPTIONS") == "star"
    assert refusal([Leads("all", b"/*")], None, b"*", b"OPTIONS").status == 404


# ---- hosts


def test_an_exact_host_wins_over_a_suffix_and_a_suffix_over_any_host() -> None:
    routes = [
        Leads("any", b"/*"),
        Leads("suffix", b"/*", host=b"*.example.com"),
        Leads("exact", b"/*", host=b"api.example.com"),
    ]
    for order in (routes, routes[::-1]):
        assert found(order, b"api.example.com", b"/") == "exact"
        assert found(order, b"www.example.com", b"/") == "suffix"
        assert found(order, b"a.b.example.com", b"/") == "suffix"
        assert found(order, b"example.com", b"/") == "any"
        assert found(order, b"notexample.com", b"/") == "any"
        assert found(order, None, b"/") == "any"


def test_the_longer_suffix_wins() -> None:
    routes = [Leads("wide", b"/*", host=b"*.example.com"), Leads("narrow", b"/*", host=b"*.eu.example.com")]
    for order in (routes, routes[::-1]):
        assert found(order, b"a.eu.example.com", b"/") == "narrow"
        assert found(order, b"eu.example.com", b"/") == "wide"


def test_host_without_a_route_for_a_path_uses_wider_hosts() -> None:
    routes = [
        Leads("own", b"/own", host=b"api.eu.example.com"),
        Leads("narrow", b"/narrow", host=b"*.eu.example.com"),
        Leads("wide", b"/wide", host=b"*.example.com"),
        Leads("any", b"/any"),
    ]
    for path in (b"own", b"narrow", b"wide", b"any"):
        assert found(routes, b"api.eu.example.com", b"/" + path) == path.decode()
    assert found(routes, b"x.eu.example.com", b"/wide") == "wide"
    assert found(routes, b"x.eu.example.com", b"/any") == "any"
    assert refusal(routes, b"x.example.com", b"/narrow").status == 404
    assert refusal(routes, b"elsewhere", b"/own").status == 404


def test_a_more_specific_host_wins_though_a_wider_one_has_the_longer_path() -> None:
    routes = [Leads("own", b"/v1/*", host=b"api"), Leads("any", b"/v1/orders/exactly")]
    assert found(routes, b"api", b"/v1/orders/exactly") == "own"


def test_without_routes_for_any_host_an_unknown_host_is_404() -> None:
    refused = refusal([Leads("own", b"/*", host=b"api")], b"other", b"/")
    assert (refused.status, refused.close) == (404, False)


# ---- methods


def test_a_method_that_the_route_does_not_take_is_405_with_allow() -> None:
    """RFC 9110 section 15.5.6: a 405 lists the allowed methods."""
    refused = refusal([Leads("get", b"/v1/*", methods=methods(b"GET", b"HEAD"))], None, b"/v1/a", b"POST")
    assert (refused.status, refused.close) == (405, False)
    assert refused.fields == b"Allow: GET, HEAD\r\n"


def test_routes_of_one_path_are_selected_by_method() -> None:
    routes = [
        Leads("read", b"/v1/*", methods=methods(b"GET")),
        Leads("write", b"/v1/*", methods=methods(b"POST", b"PUT")),
    ]
    assert found(routes, None, b"/v1/a", b"GET") == "read"
    assert found(routes, None, b"/v1/a", b"PUT") == "write"
    refused = refusal(routes, None, b"/v1/a", b"DELETE")
    assert refused.status == 405
    assert refused.fields == b"Allow: GET, POST, PUT\r\n"


def test_route_without_methods_takes_the_methods_that_other_routes_leave() -> None:
    routes = [Leads("rest", b"/v1/*"), Leads("write", b"/v1/*", methods=methods(b"POST"))]
    for order in (routes, routes[::-1]):
        assert found(order, None, b"/v1/a", b"POST") == "write"
        assert found(order, None, b"/v1/a", b"GET") == "rest"


def test_flagged_route_does_not_reveal_its_methods() -> None:
    """The route does not exist for every customer, and the customer is not known at this point."""
    flagged = Leads("new", b"/v1/*", methods=methods(b"POST"), is_flagged=True)
    assert found([flagged], None, b"/v1/a", b"POST") == "new"
    refused = refusal([flagged], None, b"/v1/a", b"GET")
    nowhere = refusal([flagged], None, b"/v2/a", b"GET")
    assert (refused.status, refused.detail, refused.fields) == (404, nowhere.detail, nowhere.fields)
    routes = [flagged, Leads("old", b"/v1/*", methods=methods(b"PUT"))]
    for order in (routes, routes[::-1]):
        refused = refusal(order, None, b"/v1/a", b"GET")
        assert (refused.status, refused.fields) == (405, b"Allow: PUT\r\n")


def test_router_matches_the_host_before_the_method() -> None:
    routes = [Leads("own", b"/a", host=b"api", methods=methods(b"GET")), Leads("any", b"/a")]
    assert found(routes, b"api", b"/a", b"GET") == "own"
    assert found(routes, b"other", b"/a", b"POST") == "any"
    # The more specific host has the path: that its method is another is 405, not another host's affair.
    assert refusal(routes, b"api", b"/a", b"POST").status == 405


def test_exact_path_answers_405_to_other_methods_despite_a_prefix() -> None:
    routes = [Leads("exact", b"/v1/a", methods=methods(b"GET")), Leads("prefix", b"/v1/*")]
    assert refusal(routes, None, b"/v1/a", b"POST").status == 405


# ---- paths that are refused though they are well-formed


class Led(NamedTuple):
    path: bytes
    methods: frozenset[bytes] | None = None
    host: bytes | None = None
    is_flagged: bool = False
    conditions: None = None


SITE = Router(
    [Led(b"/*"), Led(b"/admin/*"), Led(b"/api/v4/*"), Led(b"/put/*", frozenset((b"PUT",))), Led(b"/put/", None)]
).find_site(None)
ALONE = Router([Led(b"/v1/*")]).find_site(None)


@pytest.mark.parametrize(
    "path", [b"/a%2Fb", b"/api/v4/projects/group%2Fproject", b"/api/v4/queues/%2F/name", b"/%2F", b"/admin/a%2F"]
)
def test_an_escaped_slash_passes_within_its_route(path):
    PathRules(Paths()).check(path, b"GET", SITE, GET)


@pytest.mark.parametrize(
    "path",
    [b"/admin%2Fa", b"/%2Fadmin/a", b"/%2F%2Fadmin%2Fa", b"//admin%2Fa", b"/put%2Fa", b"/api%2Fv4/x"],
)
def test_an_escaped_slash_that_leads_past_a_route_is_refused(path):
    with pytest.raises(RejectedError) as refusal:
        PathRules(Paths()).check(path, b"GET", SITE, GET)
    assert refusal.value.status == 400


def test_path_outside_all_routes_is_not_checked_further():
    PathRules(Paths()).check(b"/v2%2F..", b"GET", ALONE, GET)


def test_rejected_pattern_is_refused_on_every_route():
    rules = PathRules(Paths(reject=("%2F",)))
    with pytest.raises(RejectedError, match="which is not accepted here"):
        rules.check(b"/api/v4/a%2Fb", b"GET", SITE, GET)
    rules.check(b"/api/v4/a", b"GET", SITE, GET)


def test_path_parameters_are_refused_if_configured():
    PathRules(Paths()).check(b"/admin;x/a", b"GET", SITE, GET)
    rules = PathRules(Paths(reject=(";",)))
    with pytest.raises(RejectedError, match="The path has ;"):
        rules.check(b"/admin;x/a", b"GET", SITE, GET)
    assert rules.usual_line(b"GET /a;b HTTP/1.1\r\n") is None
