"""Paths that are refused though they are well-formed."""

from typing import NamedTuple

import pytest

from edgeproxy.config.edge.paths import Paths
from edgeproxy.edge.errors import RejectedError
from edgeproxy.edge.proxy.routing.path_rules import PathRules
from edgeproxy.edge.proxy.routing.router import Router
from tests.support.transcript import GET


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
