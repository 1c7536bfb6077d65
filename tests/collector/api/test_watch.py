"""Alerts that the collector raises by itself: certificates, denials, and gaps of edges."""

from collections import Counter

import pytest

from edgeproxy.collector.jobs.operator_alerts import make_certificate_alerts, make_denial_alert
from edgeproxy.collector.ledger.batch_alerts import CUSTOMERS_MAX, make_batch_alerts, make_cap_alerts
from edgeproxy.collector.ledger.chain import Verdict
from edgeproxy.collector.ledger.received_batch import BatchHeaders, decode_batch
from edgeproxy.config.meters import OVER_CAP
from edgeproxy.wire.batch import ANONYMOUS, Gap, compute_digest, format_batch
from loadtest.testbed.batch_chains import Chain

DAY = 86400
NOW = 1_790_812_800.0
"""The first of October, 2026."""


@pytest.mark.parametrize(
    ("days", "severity"),
    [(31, None), (29.9, "info"), (7.1, "info"), (6.9, "warn"), (0.9, "page"), (-3, "page")],
)
def test_certificate_alert_severity_rises_near_the_expiry(days: float, severity: str | None) -> None:
    found = make_certificate_alerts({"collector.pem": NOW + days * DAY, "other.pem": NOW + 99 * DAY}, NOW)
    assert [alert.severity for alert in found] == ([] if severity is None else [severity])
    later = make_certificate_alerts({"collector.pem": NOW + days * DAY}, NOW + 60)
    assert [alert.key for alert in found] == [alert.key for alert in later], "there is one of each"
    assert all(("expired" in alert.title) == (days < 0) for alert in found)


def test_denial_alert_starts_at_the_threshold_and_names_the_worst_actor() -> None:
    counts = Counter({("edges", "192.0.2.1", "GET /v1/usage", 403, "no"): 60, ("unknown", "", "", 401, "?"): 39})
    assert make_denial_alert(counts, 100, NOW) is None
    counts["unknown", "", "", 401, "?"] += 1
    found = make_denial_alert(counts, 100, NOW)
    assert found is not None
    assert found.key == "denials:2026-10-01T00"
    assert found.details["denials"] == 100
    assert found.details["worst"][0] == {
        "actor": "edges", "origin": "192.0.2.1", "target": "GET /v1/usage", "status": 403, "why": "no", "count": 60,
    }  # fmt: skip
    contact = make_denial_alert(Counter({("contact:ada@acme.example", "", "GET /v1/keys", 403, "no"): 1}), 1, NOW)
    assert contact is not None
    assert "ada" not in str(contact), "its alert is of no customer, and stays when this one is erased"


def test_a_gap_and_a_quarantined_batch_are_told_once_a_day_of_each_token() -> None:
    chain = Chain("edge-1")
    batches = [chain.next(gap=Gap(1, 3, "disk lost")), chain.next(gap=Gap(4, 4, "again")), chain.next()]
    arrived = [
        decode_batch(
            BatchHeaders(batch.edge, batch.seq, compute_digest(format_batch(batch))), format_batch(batch), "identity"
        )
        for batch in batches
    ]
    settled = [(arrived[0], Verdict.GAP, "t"), (arrived[1], Verdict.GAP, "t"), (arrived[2], Verdict.COUNT, "t")]
    first, again = make_batch_alerts(settled, NOW)
    assert (first.key, first.severity) == ("gap:t:2026-10-01", "page")
    assert first.key == again.key
    assert first.details == {"token": "t", "edge": "edge-1", "seq": 1, "to_seq": 3, "why": "disk lost"}
    (bad,) = make_batch_alerts([(arrived[2], Verdict.QUARANTINE, "t")], NOW)
    assert (bad.key, bad.severity) == ("quarantined:t:2026-10-01", "warn")


def test_cap_alerts_name_a_few_customers_and_then_the_edge() -> None:
    chain = Chain("edge-1")

    def told(*names: str) -> list[tuple[str, str | None]]:
        rows = tuple((name, OVER_CAP, route, 5) for name in names for route in ("v1", "v2"))
        return [(cap_alert.key, cap_alert.customer) for cap_alert in make_cap_alerts([chain.next(*rows)])]

    assert told("acme", ANONYMOUS) == [
        ("request_cap:-:2026-09-21", None),
        ("request_cap:acme:2026-09-21", "acme"),
    ]
    many = told(*(f"customer-{number}" for number in range(1000)))
    assert len(many) == CUSTOMERS_MAX + 1
    assert many[-1] == ("request_caps:edge-1:2026-09-21", None)
