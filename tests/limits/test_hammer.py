"""Limits under real processes that ask as fast as they can, are killed, and are replaced."""

import json
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic

import pytest

from edgeproxy.counters.store import Store
from edgeproxy.limits.rule import Rule
from edgeproxy.limits.usage import look
from tests.limits.hammer import Record
from tests.support.windows import most_in_a_window

WINDOW = 0.5
SECONDS = 1.4
"""More than two windows."""


class Hammer:
    """One process."""

    def __init__(self, state: Path, path: Path, pause: float) -> None:
        self.path = path
        self.process = subprocess.Popen(
            (sys.executable, "-m", "tests.limits.hammer", str(state), str(path), str(pause)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ready(self) -> int:
        """Wait until it has joined; its column."""
        word, column = self.heard().split()
        assert word == "ready"
        return int(column)

    def heard(self) -> str:
        """The next line it says."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"the process ended with {self.process.wait(timeout=10)}"
        return line

    def ask(self, subject: str, limit: int, window: float, until: float) -> None:
        """Have it ask until `until`."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{subject} {limit} {window} {until}\n")
        self.process.stdin.flush()

    def times(self) -> list[float]:
        """When it let a request through, from the first on."""
        return Record(self.path).times()

    def kill(self) -> None:
        """kill -9."""
        self.process.kill()
        self.process.communicate(timeout=10)


Start = Callable[..., Hammer]


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def start(state: Path, tmp_path: Path) -> Iterator[Start]:
    started: list[Hammer] = []

    def begin(pause: float = 0.0) -> Hammer:
        hammer = Hammer(state, tmp_path / f"record-{len(started)}", pause)
        started.append(hammer)
        return hammer

    yield begin
    for hammer in started:
        hammer.kill()


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_however_hard_it_is_hammered_a_window_holds_no_more_than_its_limit(
    state: Path, start: Start, processes: int
) -> None:
    supervisor = Store.prepare(state, workers=processes, people=50, addresses=10)
    hammers = [start() for _ in range(processes)]
    assert sorted(hammer.ready() for hammer in hammers) == list(range(processes))
    seen = [0] * processes
    for limit in (60, 600, 10_000):
        until = monotonic() + SECONDS
        for hammer in hammers:
            hammer.ask(f"customer-{limit}", limit, WINDOW, until)
        assert {hammer.heard() for hammer in hammers} == {"done\n"}
        times: list[float] = []
        for place, hammer in enumerate(hammers):
            everything = hammer.times()
            times += everything[seen[place] :]
            seen[place] = len(everything)
        fullest = most_in_a_window(times, WINDOW)
        assert fullest <= limit + 2 * (processes - 1)
        assert limit <= len(times)
        # What was charged stands in the map, and nothing else.
        now = max(times)
        used = look(supervisor.people, Rule("basic", limit, WINDOW), f"customer-{limit}".encode(), now).used
        assert used >= sum(1 for moment in times if moment > now - WINDOW)
    supervisor.close()


def replace_one(hammers: list[Hammer], chance: random.Random, start: Start, pause: float) -> Hammer:
    """Kill one of them; its successor, which has taken its column."""
    victim = hammers.pop(chance.randrange(len(hammers)))
    victim.kill()
    successor = start(pause)
    assert successor.ready() < 4
    hammers.append(successor)
    return successor


def test_counts_survive_kill_9_and_a_replacement_goes_on_from_them(state: Path, start: Start, seed: int) -> None:
    supervisor = Store.prepare(state, workers=4, people=50, addresses=10)
    chance = random.Random(seed)
    limit, pause, rule = 10_000, 0.001, Rule("basic", 10_000, 60.0)
    until = monotonic() + 50
    hammers = [start(pause) for _ in range(4)]
    everyone = list(hammers)
    for hammer in hammers:
        hammer.ready()
        hammer.ask("acme", limit, 60.0, until)

    def used() -> int:
        return look(supervisor.people, rule, b"acme", monotonic() + supervisor.offset).used

    kills = 0
    while used() < limit * 0.9:
        assert monotonic() < until
        before = sum(len(hammer.times()) for hammer in everyone)
        successor = replace_one(hammers, chance, start, pause)
        kills += 1
        assert used() >= before
        successor.ask("acme", limit, 60.0, until)
        everyone.append(successor)
    refused = monotonic()
    while used() < limit or monotonic() < refused + 0.5:
        assert monotonic() < until
    recorded = sum(len(hammer.times()) for hammer in everyone)
    assert kills >= 2
    assert limit <= used() <= limit + 2 * 3
    # A worker killed between a charge and its own record of it has charged one more than it recorded.
    assert recorded <= used() <= recorded + kills
    supervisor.close()


@pytest.mark.parametrize("limit", [60, 600, 10_000])
def test_a_window_holds_no_more_than_its_limit_though_workers_are_killed_and_replaced(
    state: Path, start: Start, seed: int, limit: int
) -> None:
    Store.prepare(state, workers=4, people=50, addresses=10).close()
    chance = random.Random(seed)
    until = monotonic() + 4
    hammers = [start() for _ in range(4)]
    everyone = list(hammers)
    for hammer in hammers:
        hammer.ready()
        hammer.ask("acme", limit, WINDOW, until)
    while monotonic() < until - 1:
        successor = replace_one(hammers, chance, start, 0.0)
        successor.ask("acme", limit, WINDOW, until)
        everyone.append(successor)
    for hammer in hammers:
        assert hammer.heard() == "done\n"
    times = [moment for hammer in everyone for moment in hammer.times()]
    assert most_in_a_window(times, WINDOW) <= limit + 2 * 3
    assert len(times) >= 2 * limit


CLAIMER = """
import json, random, sys
from pathlib import Path
from time import sleep
from edgeproxy.counters.rows import TableBusy
from edgeproxy.counters.store import Store
store = Store.join(Path(sys.argv[1]))
table = store.people
chance = random.Random(int(sys.argv[2]))
keys = [f"shared-{n}" for n in range(2000)] + [f"{sys.argv[2]}-{n}" for n in range(500)]
chance.shuffle(keys)
print("ready", flush=True)
sys.stdin.readline()
rows, busy = {}, 0
while keys:
    key = keys.pop()
    try:
        row, generation, fresh = table.find(table.key(key.encode()), 2_142_858, 1000.0)
    except TableBusy:
        busy += 1
        keys.insert(0, key)
        continue
    assert generation == 2
    rows[key] = row
print(json.dumps([rows, busy]), flush=True)
"""


def test_processes_that_claim_the_same_keys_at_once_get_the_same_rows(state: Path) -> None:
    supervisor = Store.prepare(state, workers=4, people=5000, addresses=10)
    claimers = [
        subprocess.Popen(
            (sys.executable, "-c", CLAIMER, str(state), str(number)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(4)
    ]
    for claimer in claimers:
        assert claimer.stdout is not None
        assert claimer.stdout.readline() == "ready\n"
    for claimer in claimers:
        assert claimer.stdin is not None
        claimer.stdin.write("go\n")
        claimer.stdin.flush()
    everyone: dict[str, int] = {}
    for claimer in claimers:
        output, _ = claimer.communicate(timeout=60)
        rows, _ = json.loads(output)
        for key, row in rows.items():
            assert everyone.setdefault(key, row) == row
    assert len(everyone) == 2000 + 4 * 500
    assert len(set(everyone.values())) == len(everyone)
    assert supervisor.people.rows_in_use == len(everyone)
    assert sorted(supervisor.people.rows()) == sorted(everyone.values())
    supervisor.close()
