"""The tables of field names."""

import pytest

from edgeproxy.http1.fields import NOT_IN_TRAILERS, REQUEST, RESPONSE, Kind, request_kind, response_kind

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
    assert request_kind(name.encode()) is not Kind.PASS
    assert request_kind(name.encode().upper()) is not Kind.PASS


@pytest.mark.parametrize("name", [name for name in STAMPS if "-" in name])
def test_no_underscore_spelling_of_a_stamp_passes(name: str) -> None:
    assert request_kind(name.replace("-", "_").encode()) is Kind.HOP
    assert request_kind(name.replace("-", "_", 1).encode().upper()) is Kind.HOP


@pytest.mark.parametrize("name", ["Content_Length", "Transfer_Encoding", "X_API_Key"])
def test_no_underscore_spelling_of_a_field_with_a_rule_passes(name: str) -> None:
    assert request_kind(name.encode()) is Kind.HOP


@pytest.mark.parametrize("name", HOP_BY_HOP)
def test_no_hop_by_hop_field_passes_as_it_came(name: str) -> None:
    """RFC 9110 section 7.6.1."""
    assert request_kind(name.encode()) is not Kind.PASS


@pytest.mark.parametrize("name", ["Accept", "x_y", "X-Customer-Name", "X-Edge-Of-Tomorrow", "X-Forwarded-Prefix"])
def test_other_fields_pass(name: str) -> None:
    assert request_kind(name.encode()) is Kind.PASS
    assert response_kind(name.encode()) is Kind.PASS


@pytest.mark.parametrize("name", ["", " Accept", "Accept ", "Acc ept", "Acc(ept", "Acc\x00ept", "Accépt"])
def test_what_is_no_token_is_no_name(name: str) -> None:
    """RFC 9110 section 5.6.2."""
    assert request_kind(name.encode("latin-1")) is Kind.MALFORMED
    assert response_kind(name.encode("latin-1")) is Kind.MALFORMED


def test_names_in_the_tables_are_in_lower_case() -> None:
    for name in (*REQUEST, *RESPONSE, *NOT_IN_TRAILERS):
        assert name == name.lower()
