"""Every algorithm under real processes that ask as fast as they can, while some are killed and replaced.

Of N processes each may decide on what it saw before the others decided: so a window holds at most L + 2 (N - 1) c and
any t seconds of a bucket at most B + r t + 2 (N - 1) c, where c is what a request costs.
"""

import json
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from time import monotonic

import orjson
import pytest

from edgeproxy.counters.store import Store
from edgeproxy.limits.usage import look
from tests.limits.hammer import TURN, Record, Task
from tests.support.windows import most_in_a_window

WINDOW = 0.5
SECONDS = 1.2
"""More than two windows."""
PATIENCE = 10.0
"""Seconds for what a process should do at once."""
ROUNDED = 0.01
"""Tokens by which levels may be rounded, and this test's own sums."""
LIMITS = (60, 600, 10_000)


class Hammer:
    """One process, from its idle start on."""

    def __init__(self, state: Path, path: Path) -> None:
        self._path = path
        self._seen = 0
        self._process = subprocess.Popen(
            (sys.executable, "-m", "tests.limits.hammer", str(state), str(path)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def say(self, line: bytes) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + b"\n")
        self._process.stdin.flush()

    def heard(self) -> bytes:
        """The next line it says."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"the process ended with {self._process.wait(PATIENCE)}"
        return line.strip()

    def join(self) -> int:
        """Have it join; its column."""
        self.say(b"join")
        word, column = self.heard().split()
        assert word == b"ready"
        return int(column)

    def asked(self) -> float:
        """Wait until it is done; for how many seconds it really asked."""
        word, seconds = self.heard().split()
        assert word == b"done"
        return float(seconds)

    def times(self) -> list[float]:
        """When it let requests through, those that this has not returned yet."""
        times = Record(self._path).times()[self._seen :]
        self._seen += len(times)
        return times

    def kill(self) -> None:
        """kill -9."""
        self._process.kill()
        self._process.communicate(timeout=PATIENCE)


class Gang:
    """So many processes at once, and others that wait to take the places of those that are killed."""

    def __init__(self, folder: Path, size: int, deaths: int, ends: ExitStack) -> None:
        self.state = folder / "state"
        self.table = Store.prepare(self.state, workers=size, customers=200, addresses=10)
        ends.callback(self.table.close)
        everyone = [Hammer(self.state, folder / f"record-{number}") for number in range(size + deaths)]
        for hammer in everyone:
            ends.callback(hammer.kill)
        for hammer in everyone:
            assert hammer.heard() == b"idle"
        self._everyone = everyone
        self.working, self._waiting = everyone[:size], everyone[size:]
        for hammer in self.working:
            hammer.join()

    def ask(self, task: Task) -> tuple[list[float], float]:
        """When this was let through, by all together, and for how many seconds the busiest of them asked."""
        for hammer in self.working:
            hammer.say(orjson.dumps(asdict(task)))
        return self._heard()

    def ask_and_die(self, task: Task, chance: random.Random, deaths: int) -> tuple[list[float], float]:
        """The same, while so many are killed and replaced."""
        for hammer in self.working:
            hammer.say(orjson.dumps(asdict(task)))
        for _ in range(deaths):
            victim = self.working.pop(chance.randrange(len(self.working)))
            victim.kill()
            successor = self._waiting.pop()
            successor.join()
            successor.say(orjson.dumps(asdict(task)))
            self.working.append(successor)
        assert monotonic() < task.until, "there was nobody left who could have been held"
        return self._heard()

    def _heard(self) -> tuple[list[float], float]:
        asked = max([hammer.asked() for hammer in self.working])
        return sorted(moment for hammer in self._everyone for moment in hammer.times()), asked


Assemble = Callable[..., Gang]


@pytest.fixture
def assemble(tmp_path: Path) -> Iterator[Assemble]:
    """Start a gang: `assemble(2, deaths=3)`."""
    with ExitStack() as ends:
        yield lambda size, deaths=0: Gang(tmp_path, size, deaths, ends)


def fullest(times: list[float], rate: float, cost: int) -> float:
    """How full a bucket was at its fullest into which `cost` was poured at each of these sorted moments.

    As it drains `rate` a second that is the most that any t seconds brought, less `rate` times t.
    """
    level = highest = before = 0.0
    for moment in times:
        level = max(0.0, level - (moment - before) * rate) + cost
        before = moment
        highest = max(highest, level)
    return highest


def test_the_fullest_bucket_is_found() -> None:
    assert fullest([], 1.0, 1) == 0
    assert fullest([1.0, 1.0, 2.0, 10.0], 0.5, 2) == pytest.approx(5.5)


def depths(algorithm: str, limit: int) -> tuple[int, ...]:
    """How deep the buckets are that are tried; a window has none."""
    return (0,) if algorithm == "sliding_window" else (1, limit // 10, limit)


def assert_held(task: Task, times: list[float], asked: float, processes: int) -> None:
    """Never more than allowed; and, of who asked for so many seconds, hardly ever refused what was."""
    excess = 2 * (processes - 1) * task.cost
    admitted = len(times) * task.cost
    rate = task.limit / task.window
    window = most_in_a_window(times, task.window) * task.cost
    bucket = fullest(times, rate, task.cost)
    about = f"{task.algorithm} {task.limit} in {task.window} s, depth {task.depth}, cost {task.cost}"
    print(
        f"{about}: {admitted} in all, {asked:.1f} s, window {window - task.limit:+}, bucket {bucket - task.depth:+.2f}"
    )
    if task.algorithm != "token_bucket":
        assert window <= task.limit + excess, about
    if task.depth:
        assert bucket <= task.depth + excess + ROUNDED, about
    # A bucket that is shallow overflows in less than a process's turn.
    if task.depth > rate * TURN:
        assert admitted >= rate * asked * 0.8 - task.cost, about
    if not task.depth:
        windows = int(asked / task.window)
        assert admitted >= windows * (task.limit - task.cost + 1), about


@pytest.mark.parametrize("processes", [4])
@pytest.mark.parametrize("algorithm", ["sliding_window", "token_bucket", "hybrid"])
def test_however_hard_it_is_hammered_no_more_passes_than_may(
    assemble: Assemble, algorithm: str, processes: int
) -> None:
    gang = assemble(processes)
    for limit in LIMITS:
        for depth in depths(algorithm, limit):
            task = Task(f"{limit}-{depth}", algorithm, limit, WINDOW, depth, 1, monotonic() + SECONDS)
            assert_held(task, *gang.ask(task), processes)
            shown = look(gang.table.customers, task.rule(), task.subject.encode(), monotonic() + gang.table.offset)
            most = depth if algorithm == "token_bucket" else limit
            assert shown.used <= most + 2 * (processes - 1)
            assert shown.remaining == max(0, most - shown.used) or algorithm == "hybrid"


@pytest.mark.parametrize("processes", [2])
@pytest.mark.parametrize("algorithm", ["sliding_window", "token_bucket", "hybrid"])
def test_requests_of_any_cost_are_held_alike(assemble: Assemble, algorithm: str, processes: int) -> None:
    gang = assemble(processes)
    for limit, cost in ((60, 7), (600, 25), (10_000, 9)):
        for depth in depths(algorithm, limit)[-2:]:
            if depth and cost > depth:
                continue
            task = Task(f"{limit}-{depth}", algorithm, limit, WINDOW, depth, cost, monotonic() + SECONDS)
            assert_held(task, *gang.ask(task), processes)


@pytest.mark.parametrize("processes", [2])
@pytest.mark.parametrize("algorithm", ["sliding_window", "token_bucket", "hybrid"])
def test_killed_and_replaced_in_between_they_let_no_more_pass_than_may(
    assemble: Assemble, algorithm: str, processes: int, seed: int
) -> None:
    chance = random.Random(seed)
    deaths = 2
    runs = [(limit, chance.choice(depths(algorithm, limit))) for limit in LIMITS]
    gang = assemble(processes, deaths * len(runs))
    for limit, depth in runs:
        task = Task(f"{limit}-{depth}", algorithm, limit, WINDOW, depth, 1, monotonic() + SECONDS)
        assert_held(task, *gang.ask_and_die(task, chance, deaths), processes)


def test_what_killed_processes_counted_stays_counted(assemble: Assemble, seed: int) -> None:
    deaths, most = 6, 150_000
    gang = assemble(4, deaths)
    task = Task("acme", "sliding_window", most, 60.0, 0, 1, monotonic() + SECONDS)
    times, _ = gang.ask_and_die(task, random.Random(seed), deaths)
    shown = look(gang.table.customers, task.rule(), b"acme", monotonic() + gang.table.offset)
    # One that is killed between a charge and its own record of it has charged one more than it recorded.
    assert 0 < len(times) <= shown.used <= len(times) + deaths


CLAIMER = """
import json, random, sys
from pathlib import Path
from time import sleep
from edgeproxy.counters.rows import TableBusy
from edgeproxy.counters.store import Store
store = Store.join(Path(sys.argv[1]))
table = store.customers
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


def test_processes_that_claim_the_same_keys_at_once_get_the_same_rows(tmp_path: Path) -> None:
    state = tmp_path / "state"
    supervisor = Store.prepare(state, workers=4, customers=5000, addresses=10)
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
    assert supervisor.customers.rows_in_use == len(everyone)
    assert sorted(supervisor.customers.rows()) == sorted(everyone.values())
    supervisor.close()
