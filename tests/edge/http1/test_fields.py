"""The tables of field names."""

import pytest

from edgeproxy.config.edge.proxy_fields import GROUPS
from edgeproxy.config.edge.readers import REQUEST_FIELDS
from edgeproxy.edge.http1.field_values import find_value, find_values, remove_field, remove_fields
from edgeproxy.edge.http1.fields import (
    KEY_FIELDS,
    NOT_IN_TRAILERS,
    REQUEST,
    RESPONSE,
    FieldKind,
    FieldRules,
    classify_response_field,
)
from edgeproxy.edge.http1.host import replace_host
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

request_kind = FieldRules().classify

STAMPS = (
    *("X-Request-Id", "traceparent", "X-Edge-Region", "X-Customer-Id", "X-Customer-Tier", "X-Forwarded-For"),
    *("X-Forwarded-Proto", "X-Forwarded-Host", "Via", "Forwarded", "X-Real-IP", "X-Forwarded-Port"),
    *("X-Edge-Signature",),
)

HOP_BY_HOP = (
    *("Connection", "Keep-Alive", "Proxy-Connection", "TE", "Trailer", "Transfer-Encoding", "Upgrade"),
    *("Proxy-Authorization", "Proxy-Authenticate"),
)


@pytest.mark.parametrize("name", STAMPS)
def test_no_stamp_passes_as_it_came(name: str) -> None:
    assert request_kind(name.encode()) is not FieldKind.PASS
    assert request_kind(name.encode().upper()) is not FieldKind.PASS


@pytest.mark.parametrize("name", [name for name in STAMPS if "-" in name])
def test_no_underscore_spelling_of_a_stamp_passes(name: str) -> None:
    assert request_kind(name.replace("-", "_").encode()) is FieldKind.HOP
    assert request_kind(name.replace("-", "_", 1).encode().upper()) is FieldKind.HOP


@pytest.mark.parametrize("name", ["Content_Length", "Transfer_Encoding", "X_API_Key"])
def test_no_underscore_spelling_of_a_field_with_a_rule_passes(name: str) -> None:
    assert request_kind(name.encode()) is FieldKind.HOP


@pytest.mark.parametrize("mark", ["_", ".", "!", "~", "|"])
@pytest.mark.parametrize(
    "name", ["X-Customer-Id", "X-Edge-Signature", "X-Forwarded-For", "X-API-Key", "X-Original-URL"]
)
def test_no_spelling_that_a_server_may_fold_to_a_name_of_the_edge_passes(name: str, mark: str) -> None:
    assert request_kind(name.replace("-", mark).encode()) is FieldKind.HOP
    assert request_kind(mark.join(name.rsplit("-", 1)).lower().encode()) is FieldKind.HOP


ORIGINS = (
    *("X-Forwarded-Prefix", "x-forwarded-client-cert", "X-Real-Port", "X-Original-URL", "X-ORIGINAL-HOST"),
    *(name.replace("*", "x") for group in GROUPS for name in group.names),
)


@pytest.mark.parametrize("name", ORIGINS)
def test_proxy_identity_fields_are_reserved_for_trusted_proxies(name: str) -> None:
    assert request_kind(name.encode()) in (FieldKind.ORIGIN, REQUEST.get(name.lower().encode()))
    assert request_kind(name.replace("-", "_").encode()) is (FieldKind.HOP if "-" in name else FieldKind.ORIGIN)


def test_a_configuration_says_which_further_fields_are_for_trusted_proxies() -> None:
    kind = FieldRules(strip=("x-country-code", "x-internal-*")).classify
    assert {kind(name) for name in (b"X-Country-Code", b"X-Internal-Role", b"x-internal-")} == {FieldKind.ORIGIN}
    assert {kind(name) for name in (b"X_Country_Code", b"X_Internal.Role")} == {FieldKind.HOP}
    assert kind(b"X-Internal") is FieldKind.PASS


def test_strip_except_lets_named_fields_pass() -> None:
    kind = FieldRules(strip_except=("x-http-method-override", "x-envoy-*")).classify
    assert {kind(name) for name in (b"X-HTTP-Method-Override", b"x-envoy-retry-on")} == {FieldKind.PASS}
    assert kind(b"X-HTTP-Method") is FieldKind.ORIGIN
    both = FieldRules(strip=("x-envoy-internal",), strip_except=("x-envoy-*",)).classify
    assert both(b"X-Envoy-Internal") is FieldKind.ORIGIN


def test_only_configured_fields_are_key_fields() -> None:
    kind = FieldRules((b"x-key",), cookie=b"key", protocols=True).classify
    assert [kind(name) for name in (b"X-Key", b"X_Key", b"X-API-Key", b"Authorization")] == [
        *(FieldKind.API_KEY, FieldKind.HOP, FieldKind.PASS, FieldKind.PASS),
    ]
    assert kind(b"Cookie") is FieldKind.COOKIE
    assert kind(b"sec-websocket-protocol") is FieldKind.PROTOCOLS
    assert request_kind(b"Cookie") is request_kind(b"Sec-WebSocket-Protocol") is FieldKind.PASS


def test_the_configuration_knows_the_fields_that_have_a_rule() -> None:
    assert {name.encode() for name in REQUEST_FIELDS} == REQUEST.keys() - set(KEY_FIELDS)


@pytest.mark.parametrize("name", HOP_BY_HOP)
def test_no_hop_by_hop_field_passes_as_it_came(name: str) -> None:
    """RFC 9110 section 7.6.1."""
    assert request_kind(name.encode()) is not FieldKind.PASS


@pytest.mark.parametrize("name", ["Accept", "x_y", "X-Customer-Name", "X-Edge-Of-Tomorrow", "X-Forwarded", "Real-IP"])
def test_other_fields_pass(name: str) -> None:
    assert request_kind(name.encode()) is FieldKind.PASS
    assert classify_response_field(name.encode()) is FieldKind.PASS


@pytest.mark.parametrize("name", ["", " Accept", "Accept ", "Acc ept", "Acc(ept", "Acc\x00ept", "Accépt"])
def test_field_name_that_is_no_token_is_malformed(name: str) -> None:
    """RFC 9110 section 5.6.2."""
    assert request_kind(name.encode("latin-1")) is FieldKind.MALFORMED
    assert classify_response_field(name.encode("latin-1")) is FieldKind.MALFORMED


def test_names_in_the_tables_are_in_lower_case() -> None:
    for name in (*REQUEST, *RESPONSE, *NOT_IN_TRAILERS):
        assert name == name.lower()


# ---- fields in lines that were read


LINES = b"Origin: https://a\r\nVary:  Accept \r\nvary: Origin\r\nX: origin: b\r\n"


def test_field_lookup_ignores_case() -> None:
    assert find_values(LINES, b"vary") == [b"Accept", b"Origin"]
    assert find_values(LINES, b"origin") == [b"https://a"]
    assert find_values(LINES, b"y") == find_values(b"", b"vary") == []


def test_find_value_returns_only_a_single_value() -> None:
    assert find_value(LINES, b"origin") == b"https://a"
    assert find_value(LINES, b"vary") is None
    assert find_value(LINES, b"y") is None


def test_lines_are_taken_out_whole() -> None:
    assert remove_fields(LINES, {b"vary", b"origin"}) == b"X: origin: b\r\n"
    assert remove_fields(LINES, ()) == LINES
    assert remove_fields(b"HTTP/1.1 200 a: b\r\nA: c\r\n", {b"a"}) == b"HTTP/1.1 200 a: b\r\n"


@pytest.mark.parametrize(
    "lines",
    [
        b"",
        b"Vary: a\r\n",
        b"vary: a\r\nVARY: b\r\nOrigin: vary: c\r\nVary: d\r\nVary:\r\n",
        b"X-Vary: a\r\nVary-X: b\r\nVary: c\r\n",
    ],
)
def test_remove_field_equals_remove_fields_of_one_name(lines: bytes) -> None:
    assert remove_field(lines, b"vary") == remove_fields(lines, (b"vary",))


# ---- fields that tell browsers what not to do with an answer


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


# ---- another Host in the place of the client's


@pytest.mark.parametrize(
    ("lines", "changed"),
    [
        (b"Host: a\r\nX-A: 1\r\n", b"Host: new\r\nX-A: 1\r\n"),
        (b"X-Host: 1\r\nhOsT \t:a\r\n", b"X-Host: 1\r\nHost: new\r\n"),
        (b"GET / HTTP/1.1\r\nHost:\r\n\r\nHost: b\r\n", b"GET / HTTP/1.1\r\nHost: new\r\n\r\nHost: b\r\n"),
    ],
    ids=["first", "in any case", "a body stays"],
)
def test_the_line_is_replaced(lines: bytes, changed: bytes) -> None:
    assert replace_host(lines, b"new") == changed


def test_the_name_is_taken_as_it_is() -> None:
    assert replace_host(b"Host: a\r\n", rb"\1") == b"Host: \\1\r\n"
