"""The registry of alert kinds: the kinds that may be raised, and the kinds in the documentation."""

import re

import pytest

from edgeproxy.collector.alerts.alert import Alert
from edgeproxy.collector.alerts.kinds import ALERT_POLICIES, EVENT_TYPES, NOTICES, SEVERITIES, AlertKind, find_policy
from loadtest.testbed.process import ROOT

ROW = re.compile(r"^\| `([a-z_]+)` \| (.+?) \| (operators|operators, customer) \|", re.MULTILINE)
PAGE = ROOT / "docs/operations/alerting.md"


def test_the_documentation_lists_each_kind_with_its_severities_and_readers() -> None:
    documented = {
        kind: (set(re.findall(r"`([a-z]+)`", severities)), readers)
        for kind, severities, readers in ROW.findall(PAGE.read_text())
    }
    assert documented == {
        kind.value: (set(policy.severities), "operators, customer" if policy.to_customer else "operators")
        for kind, policy in ALERT_POLICIES.items()
    }


def test_each_alert_kind_has_a_policy_and_a_well_formed_name() -> None:
    assert set(ALERT_POLICIES) == set(AlertKind)
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)+", kind) for kind in AlertKind)
    assert all(set(policy.severities) <= set(SEVERITIES) for policy in ALERT_POLICIES.values())
    assert find_policy("of_a_later_version") is None


def test_each_kind_that_customers_read_is_a_type_of_their_webhooks() -> None:
    # Notices have separate webhook messages for their contents.
    read = {kind for kind, policy in ALERT_POLICIES.items() if policy.to_customer}
    assert set(EVENT_TYPES) == read - NOTICES
    assert len(set(EVENT_TYPES.values())) == len(EVENT_TYPES)


@pytest.mark.parametrize(
    ("kind", "about", "why"),
    [
        (AlertKind.INVOICE_HELD, {"severity": "warn"}, "no severity warn: page"),
        (AlertKind.QUOTA_REACHED, {}, "no severity None: info, warn, page"),
        (AlertKind.INVOICE_HELD, {"customer": "acme"}, "for operators alone"),
        ("invoice-held", {}, "invoice-held"),
    ],
)
def test_an_alert_that_its_kind_does_not_allow_cannot_be_raised(
    kind: AlertKind, about: dict[str, str], why: str
) -> None:
    with pytest.raises((ValueError, KeyError), match=why):
        Alert(key="k", kind=kind, title="x", at=0, **about)  # type: ignore[arg-type]
