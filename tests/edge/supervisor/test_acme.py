"""When a certificate by ACME is renewed, and how long a failure is waited for."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

pytest.importorskip("acme", reason="there is no acme on this machine")

from edgeproxy.edge.supervisor.acme import CHECK_SECONDS, compute_wait
from edgeproxy.edge.supervisor.acme_order import compute_renewal
from edgeproxy.edge.supervisor.self_signed import create_self_signed
from loadtest.testbed.authority import Authority

DAY = 86400.0


def test_renewal_is_due_at_two_thirds_of_the_life_but_not_soon_after_the_last(tmp_path: Path) -> None:
    file = Authority(tmp_path).issue("a.test", age=80, days=10).cert
    now = datetime.now(UTC).timestamp()
    os.utime(file, (now, now - 80 * DAY))
    assert compute_renewal(file) == pytest.approx(now - 20 * DAY, abs=60)
    os.utime(file, (now, now - 3600))
    assert compute_renewal(file) == pytest.approx(now + 2 * DAY - 3600, abs=60)
    os.utime(file, (now, now + 365 * DAY))  # The clock was ahead when it was written.
    assert compute_renewal(file) == pytest.approx(now + 2 * DAY, abs=60)
    file.write_bytes(create_self_signed(["a.test"]))
    assert compute_renewal(file) == 0


def test_waits_double_up_to_a_bound_and_follow_the_authority() -> None:
    assert [compute_wait(count, None, 1.0) for count in (1, 2, 3)] == [180, 360, 720]
    assert compute_wait(10_000, None, 1.0) == CHECK_SECONDS
    # In the first hour, five attempts at most, also with the shortest waits.
    assert sum(compute_wait(count, None, 0.8) for count in range(1, 6)) > timedelta(hours=1).total_seconds()
    assert compute_wait(1, 7200, 1.0) == 7200
    assert compute_wait(1, 30 * DAY, 1.0) == DAY
    assert compute_wait(1, 1, 1.2) == pytest.approx(216)
