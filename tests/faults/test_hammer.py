"""Limits hammered through HTTP by several processes at once: exact to 2 (N - 1), and never less than the limit."""

import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from loadtest.testbed.customers import MINUTE, WINDOW, people
from loadtest.testbed.edge import Edge, StartEdge
from loadtest.testbed.http_client import Wire
from loadtest.testbed.load_clients import Account, Load, Plan, request
from loadtest.testbed.upstream import Upstream
from loadtest.testbed.waiting import SLOWNESS

LIMITS = {"small": 60, "middle": 600, "large": 2_000}
PROCESSES = 4


def hammer(edge: Edge, customer: str, folder: Path, refusals: int) -> list[Account]:
    """Ask flat out from several processes, each until it was refused so often."""
    plan = Plan(edge.port, [customer], connections=8, refusals=refusals)
    loads = [Load(folder / customer, f"{number}", plan) for number in range(PROCESSES)]
    return [load.account(WINDOW / SLOWNESS) for load in loads]


@pytest.mark.parametrize("workers", [1, 4])
def test_limit_admits_its_exact_count_under_heavy_load(
    workers: int, start_edge: StartEdge, upstream: Upstream, tmp_path: Path
) -> None:
    rates = {name: [f"{limit}/{MINUTE}"] for name, limit in LIMITS.items()}
    edge = start_edge(**people(**rates), workers=workers)
    for name, limit in LIMITS.items():
        begun = time.monotonic()
        accounts = hammer(edge, name, tmp_path, refusals=300)
        assert time.monotonic() - begun < WINDOW
        passed = sum(account.answered(name, 200) for account in accounts)
        asked = sum(sum(account.answers[name].values()) for account in accounts)
        print(
            f"{workers} workers, limit {limit}: {passed} of {asked} passed, {asked / accounts[0].seconds:.0f} a second"
        )
        assert not any(account.lost for account in accounts)
        assert limit <= passed <= limit + 2 * (workers - 1)
        assert edge.usage()[name] == passed == upstream.seen()["received"][name] == edge.limit(name)["used"]


def test_new_customers_seen_by_several_workers_have_one_count_each(start_edge: StartEdge) -> None:
    limit, workers = 5, 4
    names = [f"new-{number}" for number in range(250)]
    edge = start_edge(**people(**{name: [f"{limit}/{MINUTE}"] for name in names}), workers=workers)
    with ExitStack() as ends:
        wires = [ends.enter_context(Wire(edge.port)).socket for _ in range(8 * workers)]
        for name in names:
            asked = request("/", name)
            for wire in wires:
                wire.send(asked)
            passed = sum(wire.recv(4096).startswith(b"HTTP/1.1 200") for wire in wires)
            assert limit <= passed <= limit + 2 * (workers - 1), name
