"""The ledger's counts of quotas, as a worker reads them."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from edgeproxy.base.calendar import period_of
from edgeproxy.base.clock import EPOCH
from edgeproxy.edge.counters.layout import HEAD_WORDS, Layout
from edgeproxy.edge.counters.reclaim import PERIOD_RETENTION_SECONDS, Reclaim
from edgeproxy.edge.counters.rows import LimitTable, RowUnavailableError
from edgeproxy.edge.limits.policies import Policies
from edgeproxy.edge.limits.quota import Quota
from edgeproxy.edge.sync.ledger_counts import LedgerCount, parse_count, write_count
from tests.support.tables import limits, make, number_of

QUOTAS = Layout("quotas", 5, 5, ring=1, cells=1, width=HEAD_WORDS)
BERLIN = ZoneInfo("Europe/Berlin")
NOON = datetime(2026, 11, 20, 12, tzinfo=UTC).timestamp() - EPOCH
NOVEMBER = period_of(NOON, "month", BERLIN)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return make(tmp_path, QUOTAS)


def quota(table: LimitTable, included: int = 100) -> Quota:
    about: Any = {"hard": True, "when": "answered", "cost": 0}
    return Policies(table).get_quota("tokens-month", included, "month", BERLIN, b"acme", **about)


def count(used: int, period: int = NOVEMBER.number, **more: Any) -> LedgerCount:
    return LedgerCount("acme", "tokens", "month", "Europe/Berlin", period, used)._replace(**more)


def test_ledger_count_limits_running_and_later_workers(path: Path) -> None:
    supervisor, worker = limits(path), limits(path, 0)
    one = quota(worker)
    assert one.left(NOON) == 100
    write_count(supervisor, count(60), NOON)
    assert one.left(NOON) == 40
    write_count(supervisor, count(100), NOON)
    assert one.left(NOON) == quota(limits(path, 1)).left(NOON) == 0
    assert one.retry_after(NOON) > 0
    assert one.left(NOVEMBER.until) == 100, "the next month is another one"


def test_ledger_count_includes_this_hosts_count_once(path: Path) -> None:
    supervisor, one = limits(path), quota(limits(path, 0))
    one.count(30, NOON)
    write_count(supervisor, count(50), NOON)
    assert one.left(NOON) == 50
    one.count(10, NOON)
    assert one.left(NOON) == 40
    write_count(supervisor, count(60), NOON)
    assert one.left(NOON) == 40, "all of it is known there"
    write_count(supervisor, count(20), NOON)
    assert one.left(NOON) == 40, "an older count takes nothing away"


def test_ledger_count_limits_from_the_start_to_the_end_of_the_period(path: Path) -> None:
    supervisor = limits(path)
    write_count(supervisor, count(100), NOON)
    (row,) = supervisor.rows()
    reclaim = Reclaim(supervisor)
    reclaim.slice(NOVEMBER.until + PERIOD_RETENTION_SECONDS - 1, float("inf"))
    assert quota(limits(path, 0)).left(NOON) == 0
    reclaim.slice(NOVEMBER.until + PERIOD_RETENTION_SECONDS + 1, float("inf"))
    assert supervisor.generation(row) % 2 == 1, "then its row is free"
    assert number_of(supervisor, row) == 0


@pytest.mark.parametrize(("months", "left"), [(-1, 100), (0, 0), (1, 0), (2, 100)])
def test_ledger_count_of_another_month_applies_only_for_the_next_month(path: Path, months: int, left: int) -> None:
    """A collector's clock may be ahead a little; a month that is over matters no more."""
    write_count(limits(path), count(100, NOVEMBER.number + months), NOON)
    assert quota(limits(path, 0)).left(NOON) == left


def test_a_full_table_has_no_row(path: Path) -> None:
    supervisor = limits(path)
    for number in range(5):
        write_count(supervisor, count(1, customer=f"c{number}"), NOON)
    with pytest.raises(RowUnavailableError):
        write_count(supervisor, count(1), NOON)


def test_malformed_ledger_count_raises_value_error() -> None:
    good = {**count(5)._asdict(), "seq": 1}
    assert parse_count(good) == count(5)
    assert parse_count({**good, "used": 1 << 70}).used == 1 << 62
    wrong: list[Any] = [{"used": -1}, {"used": 1.5}, {"used": True}, {"per": "week"}, {"timezone": "Nowhere"}]
    wrong += [{"timezone": "../x"}, {"customer": None}, {"period": "1"}, {"customer": "\ud800"}]
    for some in wrong:
        with pytest.raises(ValueError, match="cannot be read"):
            parse_count({**good, **some})
    for said in (None, [], {}, "x"):
        with pytest.raises(ValueError, match="cannot be read"):
            parse_count(said)
