"""The tables of field names."""

import pytest

from edgeproxy.config.edge.proxy_fields import GROUPS
from edgeproxy.config.edge.readers import REQUEST_FIELDS
from edgeproxy.edge.http1.fields import (
    KEY_FIELDS,
    NOT_IN_TRAILERS,
    REQUEST,
    RESPONSE,
    FieldKind,
    FieldRules,
    classify_response_field,
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
