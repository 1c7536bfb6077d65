"""Which fields an answer gets that tell browsers what not to do with it."""

import pytest

from edgeproxy.edge.http1.security_fields import (
    ALL,
    BITS,
    MISSING_LINES,
    NAMES_PLACES,
    NAMES_REGION,
    OWN_LINES,
    build_isolation_lines,
    parse_flags,
)

NAMES = {
    "strict-transport-security",
    "x-content-type-options",
    "x-frame-options",
    "content-security-policy",
    "x-xss-protection",
    "referrer-policy",
}
ISOLATION = {"permissions-policy", "cross-origin-opener-policy", "cross-origin-resource-policy"}


def fields(lines: bytes) -> dict[str, str]:
    """Lines by their names in lower case; none is there twice."""
    pairs = [line.split(": ", 1) for line in lines.decode().split("\r\n")[:-1]]
    assert len({name for name, _ in pairs}) == len(pairs)
    return {name.lower(): value for name, value in pairs}


def added(*upstream: str, secure: bool = True, isolates: bool = False) -> dict[str, str]:
    """Return the fields added to an answer with these lines."""
    said = 0
    for line in upstream:
        name, value = line.split(": ", 1)
        said |= parse_flags(name.lower().encode(), value.encode())
    return fields((build_isolation_lines() if isolates else MISSING_LINES)[secure][said])


def test_an_answer_without_any_gets_them_all() -> None:
    assert added() == {
        "strict-transport-security": "max-age=31536000",
        "x-content-type-options": "nosniff",
        "x-frame-options": "SAMEORIGIN",
        "content-security-policy": "frame-ancestors 'self'",
        "x-xss-protection": "0",
        "referrer-policy": "strict-origin-when-cross-origin",
    }


@pytest.mark.parametrize("name", sorted(NAMES))
def test_a_field_that_the_upstream_set_is_not_added(name: str) -> None:
    rest = added(f"{name}: whatever they say")
    assert name not in rest
    # An unknown X-Frame-Options value has no equivalent in a policy, and a policy would override it.
    unsaid = {"content-security-policy"} if name == "x-frame-options" else set()
    assert rest.keys() == NAMES - {name} - unsaid


@pytest.mark.parametrize("name", sorted(NAMES | ISOLATION))
def test_a_route_that_isolates_adds_each_field_that_the_upstream_has_not_set(name: str) -> None:
    assert added(isolates=True).keys() == NAMES | ISOLATION
    rest = added(f"{name}: whatever they say", isolates=True)
    unsaid = {"content-security-policy"} if name == "x-frame-options" else set()
    assert rest.keys() == (NAMES | ISOLATION) - {name} - unsaid
    if name in ISOLATION:
        assert added(f"{name}: whatever they say") == added(), "a route that does not isolate says nothing of it"


@pytest.mark.parametrize("lines", [MISSING_LINES, build_isolation_lines()])
def test_places_and_regions_that_an_answer_names_change_nothing(lines: tuple[tuple[bytes, ...], ...]) -> None:
    for more in (NAMES_PLACES, NAMES_REGION, NAMES_PLACES | NAMES_REGION):
        assert [lines[False][flags | more] for flags in range(ALL + 1)] == list(lines[False][: ALL + 1])


@pytest.mark.parametrize(("options", "ancestors"), [("DENY", "'none'"), ("deny", "'none'"), ("SAMEORIGIN", "'self'")])
def test_x_frame_options_of_the_upstream_becomes_frame_ancestors(options: str, ancestors: str) -> None:
    """Browsers heed frame-ancestors and no longer look at X-Frame-Options (CSP level 3 section 6.4.2.1)."""
    assert added(f"X-Frame-Options: {options}")["content-security-policy"] == f"frame-ancestors {ancestors}"


def test_untranslatable_frame_options_add_no_content_security_policy() -> None:
    for several in (("ALLOW-FROM https://a.example",), ("DENY", "SAMEORIGIN")):
        assert "content-security-policy" not in added(*(f"X-Frame-Options: {options}" for options in several))


def test_no_line_is_added_if_all_security_fields_are_present() -> None:
    for lines in (MISSING_LINES, build_isolation_lines()):
        assert lines[False][ALL] == lines[True][ALL] == b""


def test_the_edges_own_answers_have_every_field_and_are_no_pages() -> None:
    own = fields(OWN_LINES[True])
    assert own.keys() == NAMES | ISOLATION == {name.decode() for name in BITS} - {"x-edge-region"}
    assert own["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
