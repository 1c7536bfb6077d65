"""Every algorithm under real processes that decide as fast as they can, while some are killed and replaced.

Each of N processes may decide before it sees the others' decisions. So a window holds at most L + 2 (N - 1) c, and any
t seconds of a bucket at most B + r t + 2 (N - 1) c, with c the cost of a request.
"""

import json
import os
import random
import signal
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from time import monotonic

import orjson
import pytest

from edgeproxy.edge.counters.store import Store
from edgeproxy.edge.limits.headroom import compute_headroom
from edgeproxy.edge.limits.usage import compute_usage
from loadtest.testbed.windows import most_in_a_window
from tests.edge.limits.hammer import TURN, Record, Task
from tests.support.program import Program

WINDOW = 0.3
SECONDS = 0.7
"""More than two windows."""
ROUNDED = 0.01
"""Tokens for the rounding of levels and of the sums in this test."""
LOW, HIGH = (60, 600), 10_000


class Hammer(Program):
    """One process of tests.edge.limits.hammer."""

    def __init__(self, state: Path, path: Path) -> None:
        super().__init__("-m", "tests.edge.limits.hammer", state, path)
        self._path = path
        self._seen = 0

    def stop(self) -> None:
        """Stop the process wherever it is, and wait until it has stopped."""
        os.kill(self.process.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WNOWAIT)

    def go_on(self) -> None:
        """Let the stopped process continue."""
        os.kill(self.process.pid, signal.SIGCONT)

    def join(self) -> None:
        """Let the process join the state directory."""
        self.say("join")
        assert self.heard() == "ready"

    def read_seconds(self) -> float:
        """Wait for the end of the task. Return the seconds during which the process really made requests."""
        word, seconds = self.heard().split()
        assert word == "done"
        return float(seconds)

    def times(self) -> list[float]:
        """Return the times of admitted requests that this method has not returned before."""
        times = Record(self._path).times()[self._seen :]
        self._seen += len(times)
        return times


class Gang:
    """`size` working processes, and `deaths` spare ones that replace killed processes."""

    def __init__(self, folder: Path, size: int, deaths: int, ends: ExitStack) -> None:
        self.state = folder / "state"
        self.table = Store.prepare(self.state, workers=size, customers=200, addresses=10)
        ends.callback(self.table.close)
        self._everyone = [ends.enter_context(Hammer(self.state, folder / f"{n}")) for n in range(size + deaths)]
        for hammer in self._everyone:
            assert hammer.heard() == "idle"
        self.working, self._waiting = self._everyone[:size], self._everyone[size:]
        for hammer in self.working:
            hammer.join()

    def ask(self, task: Task, processes: int, deaths: int, chance: random.Random) -> tuple[list[float], float]:
        """Run a task in some of the processes, and kill and replace `deaths` of them during it.

        Returns the times of all admitted requests, and the seconds that the busiest process made requests.
        """
        text = orjson.dumps(asdict(task)).decode()
        asking = self.working[:processes]
        for hammer in asking:
            hammer.say(text)
        for _ in range(deaths):
            victim = chance.choice(asking)
            asking[asking.index(victim)] = self.replace(victim, text)
        assert monotonic() < task.until, "the task was over before all successors had joined"
        seconds = max([hammer.read_seconds() for hammer in asking])
        return self.collect_times(), seconds

    def replace(self, victim: Hammer, text: str) -> Hammer:
        """Kill a process. Return its successor, which got the task."""
        successor = self._waiting.pop()
        victim.kill()
        successor.join()
        successor.say(text)
        self.working[self.working.index(victim)] = successor
        return successor

    def collect_times(self) -> list[float]:
        """Return the times of all admitted requests that were not collected before."""
        return sorted(moment for hammer in self._everyone for moment in hammer.times())


def fullest(times: list[float], rate: float, cost: int) -> float:
    """Return the highest level of a bucket that gets `cost` at each of these sorted times.

    The bucket drains at `rate` a second. So the level is the greatest sum of any t seconds minus `rate` times t.
    """
    level = highest = before = 0.0
    for moment in times:
        level = max(0.0, level - (moment - before) * rate) + cost
        before = moment
        highest = max(highest, level)
    return highest


def test_fullest_returns_the_highest_level() -> None:
    assert fullest([], 1.0, 1) == 0
    assert fullest([1.0, 1.0, 2.0, 10.0], 0.5, 2) == pytest.approx(5.5)


def choose_depth(algorithm: str, limit: int, chance: random.Random, *, is_deep: bool) -> int:
    """Return the greatest bucket depth or a shallow one. A window has only 0."""
    return 0 if algorithm == "sliding_window" else limit if is_deep else chance.choice((1, limit // 10))


def assert_held(task: Task, times: list[float], seconds: float, processes: int) -> None:
    """Assert that no more passed than allowed, and not much less than processes could use in these seconds."""
    excess = 2 * (processes - 1) * task.cost
    admitted = len(times) * task.cost
    rate = task.limit / task.window
    window = most_in_a_window(times, task.window) * task.cost
    bucket = fullest(times, rate, task.cost)
    about = f"{task.algorithm} {task.limit} in {task.window} s, depth {task.depth}, cost {task.cost}"
    print(
        f"{about}: {admitted} in all, {seconds:.1f} s, "
        f"window {window - task.limit:+}, bucket {bucket - task.depth:+.2f}"
    )
    if task.algorithm != "token_bucket":
        assert window <= task.limit + excess, about
    if task.depth:
        assert bucket <= task.depth + excess + ROUNDED, about
    # A shallow bucket overflows in less than a process's turn.
    if task.depth > rate * TURN:
        assert admitted >= rate * seconds * 0.8 - task.cost, about
    if not task.depth:
        windows = int(seconds / task.window)
        assert admitted >= windows * (task.limit - task.cost + 1), about


Run = tuple[int, float, int, int, int, int]
"""Limit, window, depth, cost of a request, number of processes, and number of processes to kill."""


def runs(algorithm: str, chance: random.Random) -> list[Run]:
    """Return the runs of an algorithm: a random low limit and the high one, one of them with a deep bucket, requests of
    higher cost, and workers that are killed."""
    limits = [chance.choice(LOW), HIGH]
    chance.shuffle(limits)
    plain = [
        (limit, WINDOW, choose_depth(algorithm, limit, chance, is_deep=is_deep), 1, 4, 0)
        for limit, is_deep in zip(limits, (True, False), strict=True)
    ]
    dear, cost = chance.choice(((60, 7), (600, 25), (HIGH, 9)))
    deadly = choose_depth(algorithm, limits[0], chance, is_deep=chance.random() < 0.5)
    # The window of 60 s is not over before the test compares its counts.
    lasting = [(150_000, 60.0, 0, 1, 4, 3)] if algorithm == "sliding_window" else []
    return [
        *plain,
        (dear, WINDOW, choose_depth(algorithm, dear, chance, is_deep=True), cost, 2, 0),
        (limits[0], WINDOW, deadly, 1, 2, 2),
        *lasting,
    ]


@pytest.mark.parametrize("algorithm", ["sliding_window", "token_bucket", "hybrid"])
def test_parallel_processes_stay_within_the_limit_while_some_are_killed(
    algorithm: str, tmp_path: Path, seed: int
) -> None:
    chance = random.Random(seed)
    drawn = runs(algorithm, chance)
    with ExitStack() as ends:
        gang = Gang(tmp_path, max(run[4] for run in drawn), sum(run[5] for run in drawn), ends)
        for number, (limit, window, depth, cost, processes, deaths) in enumerate(drawn):
            # The task must last until each successor has joined.
            until = monotonic() + SECONDS * (1 + deaths / 2)
            task = Task(f"customer-{number}", algorithm, limit, window, depth, cost, until)
            times, seconds = gang.ask(task, processes, deaths, chance)
            assert_held(task, times, seconds, processes)
            shown = compute_usage(
                gang.table.customers, task.rule(), task.subject.encode(), monotonic() + gang.table.offset
            )
            most = depth if algorithm == "token_bucket" else limit
            assert shown.used <= most + 2 * (processes - 1) * cost + deaths
            assert shown.remaining == max(0, most - shown.used) or algorithm == "hybrid"
            if window > SECONDS:
                # A process killed between a charge and its record has charged one request more than it recorded.
                assert 0 < len(times) <= shown.used <= len(times) + deaths


def test_ten_processes_with_headroom_stay_within_the_limit_despite_kills(tmp_path: Path, seed: int) -> None:
    chance, processes, deaths = random.Random(seed), 10, 2
    with ExitStack() as ends:
        gang = Gang(tmp_path, processes, deaths, ends)
        assert compute_headroom(HIGH, gang.table.customers.layout.columns) > 50
        cost, until = chance.choice((1, 7)), monotonic() + 3 * SECONDS
        task = Task("customer", "sliding_window", HIGH, WINDOW, 0, cost, until)
        text = orjson.dumps(asdict(task)).decode()
        for hammer in gang.working:
            hammer.say(text)
        for _ in range(deaths):
            # Stopped with headroom, or in the middle of a decision, while the others use the limit up.
            for hammer in (stopped := chance.sample(gang.working, 4)):
                hammer.stop()
            gang.replace(stopped.pop(), text)
            for hammer in stopped:
                hammer.go_on()
        seconds = max([hammer.read_seconds() for hammer in gang.working])
        assert_held(task, gang.collect_times(), seconds, processes)


CLAIMER = """
import json, random, sys
from pathlib import Path
from edgeproxy.edge.counters.rows import TableBusyError
from edgeproxy.edge.counters.store import Store
store = Store.join(Path(sys.argv[1]))
table = store.customers
chance = random.Random(int(sys.argv[2]))
keys = [f"shared-{n}" for n in range(2000)] + [f"{sys.argv[2]}-{n}" for n in range(500)]
chance.shuffle(keys)
print("ready", flush=True)
sys.stdin.readline()
rows = {}
while keys:
    key = keys.pop()
    try:
        row, generation, fresh = table.find(table.make_key(key.encode()), 2_142_858, 1000.0)
    except TableBusyError:
        keys.insert(0, key)
        continue
    assert generation == 2
    rows[key] = row
print(json.dumps(rows), flush=True)
"""


def test_processes_that_claim_equal_keys_at_once_get_equal_rows(tmp_path: Path) -> None:
    state = tmp_path / "state"
    supervisor = Store.prepare(state, workers=4, customers=5000, addresses=10)
    everyone: dict[str, int] = {}
    with ExitStack() as ends:
        claimers = [ends.enter_context(Program("-c", CLAIMER, state, number)) for number in range(4)]
        for claimer in claimers:
            assert claimer.heard() == "ready"
        for claimer in claimers:
            claimer.say("go")
        for claimer in claimers:
            for key, row in json.loads(claimer.heard()).items():
                assert everyone.setdefault(key, row) == row
    assert len(everyone) == 2000 + 4 * 500
    assert len(set(everyone.values())) == len(everyone)
    assert supervisor.customers.rows_in_use == len(everyone)
    assert sorted(supervisor.customers.rows()) == sorted(everyone.values())
    supervisor.close()
