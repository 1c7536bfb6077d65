"""Hosts on one hub hold one limit: real tables and gates, the real planner, a network that takes time (hosts.py)."""

from pathlib import Path

import pytest

from edgeproxy.edge.counters.hub_column import OnLoss
from edgeproxy.edge.limits.rate_terms import Mode
from edgeproxy.edge.limits.rule import Rule
from edgeproxy.edge.sync.rate import GOOD_SECONDS
from edgeproxy.edge.sync.shared import RowUse
from tests.support.hosts import WORKERS, World

MINUTE = 60.0


def rule(limit: int) -> Rule:
    return Rule("basic", limit, MINUTE)


def spread(world: World, of: Rule, mode: str, begin: float, end: float, rate: float) -> None:
    """So many requests a second over all workers of all hosts."""
    workers = [worker for host in world.hosts for worker in host.workers]
    for worker in workers:
        world.load(worker, of, mode, begin, end, rate / len(workers))  # type: ignore[arg-type]


@pytest.mark.parametrize("limit", [60, 600])
def test_limit_holds_under_three_times_its_load(tmp_path: Path, seed: int, limit: int) -> None:
    world, of = World(tmp_path, seed), rule(limit)
    spread(world, of, "bounded", 0, 100, 3 * limit / MINUTE)
    world.run(100)
    hosts = len(world.hosts)
    assert limit * 0.9 <= world.worst(MINUTE) <= limit + max(0.03 * limit, hosts) + 2 * (WORKERS - 1) * hosts


@pytest.mark.parametrize(("limit", "most"), [(60, 1.55), (600, 1.15)])
def test_a_burst_everywhere_at_once_from_idle(tmp_path: Path, seed: int, limit: int, most: float) -> None:
    world, of = World(tmp_path, seed), rule(limit)
    spread(world, of, "bounded", 0, 1, 3000)
    world.run(30)
    assert limit * 0.95 <= world.worst(MINUTE) <= most * limit
    assert max(world.waits) < 0.25


def test_a_burst_at_one_host_passes_the_limit_and_no_more(tmp_path: Path, seed: int) -> None:
    world, of = World(tmp_path, seed), rule(600)
    for worker in world.hosts[1].workers:
        world.load(worker, of, "bounded", 0, 3, 500)
    world.run(30)
    assert 600 <= world.worst(MINUTE) <= 600 + 2 * (WORKERS - 1)
    assert len(world.waits) < 0.25 * world.asked


@pytest.mark.parametrize("limit", [60, 600])
def test_strict_is_never_above(tmp_path: Path, seed: int, limit: int) -> None:
    world, of = World(tmp_path, seed), rule(limit)
    spread(world, of, "strict", 0, 1, 1500)
    spread(world, of, "strict", 10, 90, 3 * limit / MINUTE)
    world.run(90)
    assert 0.9 * limit <= world.worst(MINUTE) <= limit + 2 * (WORKERS - 1)
    assert max(world.waits) < 0.5


def test_no_request_waits_far_from_the_limit(tmp_path: Path, seed: int) -> None:
    world, of = World(tmp_path, seed), rule(600)
    spread(world, of, "bounded", 0, 100, 0.7 * 10)
    world.run(100)
    assert world.refused == 0
    assert world.waits == []


@pytest.mark.parametrize("mode", ["bounded", "eventual"])
def test_eventual_mode_never_waits_for_the_hub(tmp_path: Path, seed: int, mode: str) -> None:
    world, of = World(tmp_path, seed), rule(60)
    spread(world, of, mode, 0, 2, 600)
    world.run(20)
    assert bool(world.waits) == (mode == "bounded")


def test_each_host_keeps_its_share_during_a_hub_outage(tmp_path: Path, seed: int) -> None:
    world, of = World(tmp_path, seed), rule(600)
    spread(world, of, "bounded", 0, 150, 30)
    world.later(70, setattr, world, "linked", False)
    world.later(100, setattr, world, "linked", True)
    world.run(150)
    assert world.worst(MINUTE) <= 1.25 * 600
    assert sum(moment > world.now - 20 for moment in world.passed) > 60, "after it, all goes on"


@pytest.mark.parametrize(("on_loss", "most"), [("full", 60), ("share", 20), ("deny", 0)])
@pytest.mark.parametrize("mode", ["bounded", "eventual"])
def test_new_subjects_pass_only_a_part_while_the_hub_is_away(
    tmp_path: Path, seed: int, on_loss: OnLoss, most: int, mode: Mode
) -> None:
    world, known, new = World(tmp_path, seed, on_loss=on_loss), rule(60), Rule("new", 60, 90.0)
    spread(world, known, mode, 0, 10, 12)
    world.later(4, setattr, world, "linked", False)
    world.run(11)
    assert all(host.away for host in world.hosts)
    if on_loss == "deny":
        world.later(1, spread, world, known, mode, 0, 60, 50)
    world.passed.clear()
    world.waits.clear()
    for host in world.hosts:
        # All at once, before any supervisor hears of it.
        for number in range(100):
            world.later(10, host.workers[number % WORKERS].request, new, mode)
    spread(world, new, mode, 10.1, 80, 20)
    world.run(80)
    assert 0.9 * 3 * most <= len(world.passed) <= 3 * (most + 2 * (WORKERS - 1) * (most > 0))
    assert world.waits == []


def test_share_without_the_hub_follows_the_last_known_usage(tmp_path: Path, seed: int) -> None:
    world, of = World(tmp_path, seed), rule(600)
    spread(world, of, "bounded", 0, 110, 200)
    # The first window has just ended. A full window of requests passes again, and no host knows the others' counts.
    world.later(62, setattr, world, "linked", False)
    world.run(110)
    assert world.worst(MINUTE) <= 1.15 * 600


@pytest.mark.parametrize("limit", [60, 600])
def test_first_reconnecting_host_leaves_other_shares_unchanged(tmp_path: Path, seed: int, limit: int) -> None:
    world, of = World(tmp_path, seed), rule(limit)
    spread(world, of, "bounded", 0, 120, 20 * limit / MINUTE)
    world.later(62, setattr, world, "linked", False)
    world.later(92, setattr, world, "linked", True)
    for number, host in enumerate(world.hosts):
        host.back_at = world.now + 93 + 3 * number
    world.run(120)
    assert world.worst(MINUTE) <= 1.3 * limit


def test_while_the_hub_is_away_workers_do_not_tell_of_every_request(tmp_path: Path, seed: int) -> None:
    world, of = World(tmp_path, seed), rule(60_000)
    spread(world, of, "bounded", 0, 40, 600)
    world.later(10, setattr, world, "linked", False)
    world.run(20)
    told: list[RowUse] = []
    for host in world.hosts:
        tell = host.told_by_worker
        host.told_by_worker = lambda use, tell=tell: (told.append(use), tell(use))  # type: ignore[assignment,misc]
    world.run(20)
    assert len(world.passed) == world.asked
    assert 0 < len(told) < 20 / GOOD_SECONDS * 2 * len(world.hosts) * WORKERS


def test_hosts_report_again_to_a_hub_that_lost_its_data(tmp_path: Path, seed: int) -> None:
    world, of = World(tmp_path, seed), rule(600)
    spread(world, of, "bounded", 0, 100, 30)
    for moment in (20, 40, 60):
        world.later(moment, world.hub.forget)
    world.run(100)
    assert 0.9 * 600 <= world.worst(MINUTE) <= 1.1 * 600


def test_restarted_supervisor_counts_no_usage_twice(tmp_path: Path, seed: int) -> None:
    world, of = World(tmp_path, seed), rule(600)
    spread(world, of, "strict", 0, 100, 8)  # At 9 a second a minute has more than 600 of them at some seeds.
    for host in world.hosts:
        for moment in (15, 30, 45, 60):
            world.later(moment + host.rtt, host.begin)
    world.run(100)
    assert world.worst(MINUTE) <= 600
    assert world.refused <= 0.02 * world.asked, "nothing is counted that did not pass"


def test_strict_host_keeps_no_claims_of_an_unused_limit(tmp_path: Path, seed: int) -> None:
    world, of = World(tmp_path, seed), rule(10)
    for host in world.hosts[1:]:
        world.later(0.0, host.workers[0].request, of, "strict")
    world.run(3 * MINUTE)
    assert [len(host.shared) for host in world.hosts] == [0] * len(world.hosts)
    for number in range(12):
        world.later(number, world.hosts[0].workers[0].request, of, "strict")
    world.run(30)
    assert world.worst(MINUTE) == 10, "the whole limit"
