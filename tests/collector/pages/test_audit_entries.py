"""The target of an entry of the audit log, and its changes."""

from typing import Any

import pytest

from edgeproxy.collector.pages.audit_entries import AuditObject, Changed, describe_object, list_changes

KEY = "01a2192f-7a72-7f2a-90b5-111bb2c5306e"


def entry(action: str, target: str, before: Any = None, after: Any = None) -> dict[str, Any]:
    return {"action": action, "target": target, "actor": "admin", "before": before, "after": after}


@pytest.mark.parametrize(
    ("one", "about"),
    [
        (entry("customer.change", "acme"), AuditObject("acme", "/console/customers/acme")),
        (
            entry("key.create", f"acme/{KEY}", None, {"name": "ci", "id": KEY}),
            AuditObject("server", "/console/customers/acme#keys", "acme"),
        ),
        (entry("key.revoke", f"acme/{KEY}"), AuditObject("server", "/console/customers/acme#keys", "acme")),
        (
            entry("billing.details", KEY.replace("e", "0")),
            AuditObject("01a2192f…", f"/console/customers/{KEY.replace('e', '0')}"),
        ),
        (
            entry("incident.create", KEY.replace("e", "0"), None, {"title": "Slow"}),
            AuditObject("Slow", f"/console/incidents#{KEY.replace('e', '0')}"),
        ),
        (entry("edge.change", "e/../x"), AuditObject("e", "/console/edges/e")),
        (entry("customer.create", "a b?c"), AuditObject("a b?c", "/console/customers/a%20b%3Fc")),
        (entry("denied", "GET /v1/edges"), AuditObject("GET /v1/edges", "")),
        (entry("session.end", "admin"), AuditObject("", "")),
        (entry("alert.assign", "7", None, {"to": "jane"}), AuditObject("#7", "/console/alerts")),
        (
            entry("price_change.schedule", "x", None, {"moves": ["a@1 → a@2", "b@1 → b@2"]}),
            AuditObject("a@1 → a@2, b@1 → b@2", "/console/price-changes/x"),
        ),
    ],
)
def test_an_entry_is_about_something_with_a_name_and_a_page(one: dict[str, Any], about: AuditObject) -> None:
    assert describe_object(one, {KEY: "server"}) == about


def test_a_customer_has_its_shown_name_whether_an_entry_has_its_name_or_its_id() -> None:
    for target, page in (("acme", "acme"), (KEY, KEY)):
        about = describe_object(entry("credits.checkout", target), {KEY: "Acme Ltd"}, {"acme": "Acme Ltd", KEY: KEY})
        assert about == AuditObject("Acme Ltd", f"/console/customers/{page}")


def test_changes_are_fields_that_differ_and_name_nothing_that_is_known() -> None:
    before = {"tier": "pro", "state": "active", "limits": {"rate": 5}, "gone": [1, 2]}
    after = {"tier": "standard", "state": "active", "limits": {"rate": 10}, "gone": None, "name": "acme", "id": KEY}
    one = entry("customer.change", "acme", before, after)
    assert list_changes(one, describe_object(one, {})) == [
        Changed("tier", "pro", "standard"),
        Changed("limits.rate", "5", "10"),
        Changed("gone", "1, 2", ""),
    ]
