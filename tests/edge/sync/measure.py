"""Measure the cost of limits shared over a hub, with supervisors and workers of an edge, a Redis, and no HTTP.

    python -m tests.edge.sync.measure hot      one limit at three times its allowed rate, on several hosts
    python -m tests.edge.sync.measure warm     many limits, each used now and then: --keys, --every, --hosts, --wide
    python -m tests.edge.sync.measure back     the hub is lost and found again with many limits in use

Redis reports its calls, their bytes, its CPU time and its memory (INFO). A supervisor reports its CPU time, its memory
and the delays of its event loop. Each runs in its own process. Workers decide as edge/proxy/ does, with policies and
gates over shared tables. Times from a busy machine mean little: compare only figures of one run.
"""

import argparse
import asyncio
import json
import multiprocessing
import random
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import mean
from typing import Any

import redis
import uvloop

from edgeproxy.base.tasks import Tasks
from edgeproxy.config.hub_settings import Hub
from edgeproxy.edge import messages
from edgeproxy.edge.channel import Channel, ChannelClosedError, Outbox
from edgeproxy.edge.counters.store import Store
from edgeproxy.edge.limits.gate import Gate
from edgeproxy.edge.limits.policies import Policies
from edgeproxy.edge.limits.policy import Policy
from edgeproxy.edge.limits.rule import Rule
from edgeproxy.edge.messages import ClaimsUnused, LimitsUsed
from edgeproxy.edge.proxy.exchange.claim_waiter import ClaimWaiter
from edgeproxy.edge.sync.coordinator import Coordinator
from loadtest.testbed.redis import Redis

SPAWN = multiprocessing.get_context("spawn")
LOOKS = 0.005
"""Seconds between two measurements of the delay of an event loop."""
TURN = 0.002
"""Seconds between two turns of the generator of requests."""


@dataclass(frozen=True)
class Load:
    """A load of `rate` requests a second in all, spread at random over subjects with a limit per `window` seconds."""

    limit: int
    subjects: int
    rate: float
    window: float = 60.0
    first: int = 0


# ---- a supervisor


def supervise(state: Path, url: str, rows: int, line: socket.socket, control: Connection) -> None:
    """Run the part of an edge's supervisor that serves limits."""
    store = Store.prepare(state, workers=1, customers=rows, addresses=64, hub=True)
    uvloop.run(_supervise(store, Hub(url=url), line, control))


async def _supervise(store: Store, settings: Hub, line: socket.socket, control: Connection) -> None:
    loop, ended, tasks = asyncio.get_running_loop(), asyncio.Event(), Tasks()
    channel = await Channel.from_socket(line, messages.SUPERVISOR)
    outbox = Outbox(channel)
    late: list[float] = []

    async def hear() -> None:
        try:
            while True:
                message = await channel.receive()
                if isinstance(message, LimitsUsed):
                    coordinator.record_uses(message)
        except ChannelClosedError:
            ended.set()

    async def look() -> None:
        while True:
            due, spent = loop.time() + LOOKS, time.thread_time()
            await asyncio.sleep(LOOKS)
            # The delay is capped by this thread's CPU time, because other load on the machine must not count.
            late.append(min(loop.time() - due, time.thread_time() - spent))

    def asked() -> None:
        control.recv()
        late.sort()
        control.send(
            {
                "cpu": time.process_time(),
                "memory": memory(),
                "late": [1000 * late[len(late) * of // 1000] if late else 0.0 for of in (500, 990, 999)],
                "latest": 1000 * max(late, default=0.0),
                "series": {name: values[0] for name, _, values in coordinator.series()},
                "hub": coordinator.report(),
            }
        )
        late.clear()

    coordinator = Coordinator(store, settings, outbox.send_latest)
    loop.add_reader(control.fileno(), asked)
    tasks.start("to the worker", outbox.deliver())
    tasks.start("from the worker", hear())
    tasks.start("looks", look())
    coordinator.begin()
    await ended.wait()
    await coordinator.end()
    await tasks.cancel()
    store.close()


def memory() -> int:
    """Return the bytes of private memory of this process. The tables do not count, because they are files."""
    for row in Path("/proc/self/status").read_text().splitlines():
        if row.startswith("RssAnon"):
            return int(row.split()[1]) * 1024
    raise AssertionError("no RssAnon")


# ---- a worker


@dataclass
class Customer:
    """One subject at one worker. Its requests wait for the hub as in edge/proxy/exchange/exchange.py."""

    worker: "Worker"
    policy: Policy
    gate: Gate

    def ask(self, since: float | None = None) -> None:
        """Decide on a request. `since` is the monotonic time of its arrival if it has waited."""
        worker, gate = self.worker, self.gate
        now = worker.now()
        worker.asked += since is None
        left = self.policy.left(now)
        if left < 1:
            gate.record_refusal(now)
        elif gate.must_ask(now, 1, left):
            seconds = worker.asking.compute_wait_seconds(gate, since or time.monotonic())
            if gate.is_asking_useless(now) or gate.waiting >= left or seconds <= 0:
                gate.record_refusal(now)
            else:
                worker.waits += since is None
                worker.asking.add_waiter(gate, 1, Waiting(self, since or time.monotonic()), seconds)
        else:
            self.policy.charge(1)
            gate.record_charge(now, 1)
            worker.passed += 1


@dataclass
class Waiting:
    """A waiting request."""

    customer: Customer
    since: float

    def go_on(self) -> None:
        self.customer.ask(self.since)


@dataclass
class Worker:
    """A worker and its counts."""

    store: Store
    asking: ClaimWaiter
    asked: int = 0
    passed: int = 0
    waits: int = 0
    policies: Policies = field(init=False)

    def __post_init__(self) -> None:
        self.policies = Policies(self.store.customers, sharing=self.asking)

    def now(self) -> float:
        return time.monotonic() + self.store.offset

    def customers(self, load: Load) -> Iterator[Customer]:
        rule = Rule("pro", load.limit, load.window)
        for number in range(load.first, load.first + load.subjects):
            subject = b"customer-%d" % number
            policy = self.policies.get_policy(rule, subject)
            policy.left(self.now())
            gate = self.policies.gate(rule, subject, "bounded")
            assert gate is not None
            yield Customer(self, policy, gate)


def work(state: Path, load: Load, line: socket.socket, control: Connection) -> None:
    """Run a worker under a load."""
    uvloop.run(_work(Store.join(state), load, line, control))


async def _work(store: Store, load: Load, line: socket.socket, control: Connection) -> None:
    channel, tasks = await Channel.from_socket(line, messages.WORKER), Tasks()
    worker = Worker(store, ClaimWaiter(channel.try_send))

    async def hear() -> None:
        try:
            while True:
                message = await channel.receive()
                if isinstance(message, ClaimsUnused):
                    worker.asking.return_claims(message.rows)
                else:
                    worker.asking.on_hub_answer()
        except ChannelClosedError:
            pass

    tasks.start("from the supervisor", hear())
    customers = list(worker.customers(load))
    control.send("ready")
    await asyncio.to_thread(control.recv)
    due = time.monotonic()
    while True:
        now = time.monotonic()
        # Requests that this machine was too slow to make are skipped.
        due = max(due, now - 0.1)
        while due <= now:
            random.choice(customers).ask()
            due += random.expovariate(load.rate)
        if control.poll():
            if control.recv() == "end":
                break
            control.send({"asked": worker.asked, "passed": worker.passed, "waits": worker.waits})
        await asyncio.sleep(TURN)
    await tasks.cancel()
    channel.close()


# ---- edges and Redis


class Edge:
    """A supervisor and its worker."""

    def __init__(self, folder: Path, url: str, load: Load) -> None:
        theirs, ours = socket.socketpair()
        self.supervisor, there = SPAWN.Pipe()
        self.worker, at_work = SPAWN.Pipe()
        rows = max(64, load.subjects * 2)
        self._processes = [
            SPAWN.Process(target=supervise, args=(folder, url, rows, theirs, there)),
            SPAWN.Process(target=work, args=(folder, load, ours, at_work)),
        ]
        self._processes[0].start()
        self.before = self.said()
        self._processes[1].start()
        assert self.worker.recv() == "ready"
        # With these copies open, neither process would notice that the other one ended.
        theirs.close()
        ours.close()

    def begin(self) -> None:
        self.worker.send("begin")

    def said(self) -> dict[str, Any]:
        """Return the supervisor's present report."""
        self.supervisor.send("?")
        found: dict[str, Any] = self.supervisor.recv()
        return found

    def counted(self) -> dict[str, int]:
        """Return the worker's present counts."""
        self.worker.send("?")
        found: dict[str, int] = self.worker.recv()
        return found

    def end(self) -> None:
        self.worker.send("end")
        for process in reversed(self._processes):
            process.join(20)
            process.kill()


class Server:
    """A Redis and its statistics."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.redis = Redis(folder)
        self.client: Any = redis.Redis(port=self.redis.port)

    def said(self) -> dict[str, float]:
        info = self.client.info("everything")
        script = info.get("cmdstat_fcall", {"calls": 0, "usec": 0})
        return {
            "at": time.monotonic(),
            "calls": script["calls"],
            "script": script["usec"] / 1e6,
            "cpu": info["used_cpu_user"] + info["used_cpu_sys"],
            "in": info["total_net_input_bytes"],
            "out": info["total_net_output_bytes"],
            "memory": info["used_memory"],
            "keys": sum(base["keys"] for name, base in info.items() if name.startswith("db")),
        }


@contextmanager
def edges(hosts: int, loads: list[Load]) -> Iterator[tuple[Server, list[Edge]]]:
    """Start edges on a hub. Their workers wait for `begin`."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        server = Server(folder / "redis")
        made: list[Edge] = []
        try:
            made.extend(Edge(folder / f"edge-{of}", server.redis.url, loads[of]) for of in range(hosts))
            deadline = time.monotonic() + 60
            while not all(edge.said()["hub"]["hosts"] == hosts for edge in made):
                assert time.monotonic() < deadline, [edge.said() for edge in made]
                time.sleep(0.1)
            yield server, made
        finally:
            for edge in made:
                edge.end()
            server.redis.kill()


def measured(server: Server, made: list[Edge], warm_up: float, seconds: float) -> dict[str, float]:
    """Run the load, and return rates and costs of the `seconds` after `warm_up`."""
    fresh = server.said()
    for edge in made:
        edge.begin()
    time.sleep(warm_up)
    said, began, counted = [edge.said() for edge in made], server.said(), [edge.counted() for edge in made]
    time.sleep(seconds)
    after, then, more = [edge.said() for edge in made], server.said(), [edge.counted() for edge in made]
    took = then["at"] - began["at"]
    calls = max(1, then["calls"] - began["calls"])
    cpu = sum(one["cpu"] - before["cpu"] for before, one in zip(said, after, strict=True))
    rows = sum(one["series"]["edge_limits_shared"] for one in after)
    grown = sum(one["memory"] - edge.before["memory"] for one, edge in zip(after, made, strict=True))
    return {
        "requests_s": sum(b["asked"] - a["asked"] for a, b in zip(counted, more, strict=True)) / took,
        "passed_s": sum(b["passed"] - a["passed"] for a, b in zip(counted, more, strict=True)) / took,
        "waited": sum(b["waits"] - a["waits"] for a, b in zip(counted, more, strict=True))
        / max(1, sum(b["asked"] - a["asked"] for a, b in zip(counted, more, strict=True))),
        "calls_s": calls / took,
        "in_s": (then["in"] - began["in"]) / took,
        "out_s": (then["out"] - began["out"]) / took,
        "in_call": (then["in"] - began["in"]) / calls,
        "out_call": (then["out"] - began["out"]) / calls,
        "redis_us": 1e6 * (then["cpu"] - began["cpu"]) / calls,
        "script_us": 1e6 * (then["script"] - began["script"]) / calls,
        "redis_core": (then["cpu"] - began["cpu"]) / took,
        "redis_bytes_key": (then["memory"] - fresh["memory"]) / max(1, then["keys"] - fresh["keys"]),
        "redis_keys": then["keys"],
        "supervisor_us": 1e6 * cpu / calls,
        "supervisor_core": cpu / took / len(made),
        "rows": rows / len(made),
        "bytes_row": grown / max(1, rows),
        "age_s": max(one["series"]["edge_limit_sync_age_seconds"] for one in after),
        "late_p50_ms": max(one["late"][0] for one in after),
        "late_p99_ms": max(one["late"][1] for one in after),
        "late_p999_ms": max(one["late"][2] for one in after),
        "latest_ms": max(one["latest"] for one in after),
    }


def said_of(found: dict[str, float]) -> str:
    """Format the figures as one line for a terminal."""
    return (
        f"{found['requests_s']:7.0f} requests/s, {100 * found['waited']:4.1f} % waited;"
        f" hub {found['calls_s']:7.1f} calls/s,"
        f" {found['in_s'] / 1000:7.1f} kB/s in ({found['in_call']:4.0f} each),"
        f" {found['out_s'] / 1000:7.1f} kB/s out ({found['out_call']:4.0f}),"
        f" {found['redis_us']:4.0f} us each ({found['script_us']:.0f} in scripts),"
        f" {100 * found['redis_core']:5.1f} % of a core,"
        f" {found['redis_bytes_key']:.0f} B a key of {found['redis_keys']:.0f};"
        f" supervisor {found['supervisor_us']:4.0f} us a call, {100 * found['supervisor_core']:5.1f} % of a core,"
        f" {found['rows']:.0f} rows, {found['bytes_row']:.0f} B each, age {found['age_s']:.0f} s, loop late by"
        f" {found['late_p50_ms']:.1f}, {found['late_p99_ms']:.1f}, {found['late_p999_ms']:.1f},"
        f" {found['latest_ms']:.1f} ms (p50, p99, p99.9, most)"
    )


# ---- the scenarios


def hot(given: argparse.Namespace) -> Iterator[tuple[str, dict[str, float]]]:
    """Measure one limit that gets three times its allowed rate over all hosts."""
    for hosts in given.hosts or (3, 6):
        for limit in given.limits:
            load = Load(limit, 1, 3 * limit / 60 / hosts)
            with edges(hosts, [load] * hosts) as (server, created):
                found = [measured(server, created, given.warm_up, given.seconds)]
            yield f"hot, {limit}/min, {hosts} hosts", {name: mean(one[name] for one in found) for name in found[0]}


def warm(given: argparse.Namespace) -> Iterator[tuple[str, dict[str, float]]]:
    """Measure many limits, each used every `--every` seconds on average, by all hosts with `--wide`, else by one."""
    for hosts in given.hosts or (1, 3):
        for every in given.every:
            keys = given.keys
            loads = [
                Load(given.limits[-1], keys, keys / every, first=0 if given.wide else keys * of) for of in range(hosts)
            ]
            with edges(hosts, loads) as (server, created):
                found = measured(server, created, given.warm_up, given.seconds)
            where = "all hosts use each" if given.wide else "one host uses each"
            yield f"warm, {keys} a host every {every:g} s, {hosts} hosts, {where}", found


def back(given: argparse.Namespace) -> Iterator[tuple[str, dict[str, float]]]:
    """Measure a hub that hangs and comes back while many limits are in use."""
    for hosts in given.hosts or (1,):
        loads = [
            Load(given.limits[-1], given.keys, given.keys / given.every[0], first=given.keys * of)
            for of in range(hosts)
        ]
        with edges(hosts, loads) as (server, created):
            found = measured(server, created, given.warm_up, given.seconds)
            yield "before", found
            server.redis.stop()
            time.sleep(4)
            for edge in created:
                said = edge.said()
                print("away:", said["hub"], f"loop late by at most {said['latest']:.1f} ms", flush=True)
            server.redis.go_on()
            for _ in range(5):
                time.sleep(2)
                for edge in created:
                    said = edge.said()
                    print(
                        "back:",
                        said["hub"],
                        said["series"],
                        f"loop late by {said['late']}, {said['latest']:.1f} ms",
                        flush=True,
                    )


PLAYED = {"hot": hot, "warm": warm, "back": back}


def main() -> None:
    """Measure a scenario and print a line for each result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=PLAYED)
    parser.add_argument("--hosts", type=int, nargs="+")
    parser.add_argument("--limits", type=int, nargs="+", default=[60, 600, 10_000])
    parser.add_argument("--keys", type=int, default=10_000)
    parser.add_argument("--every", type=float, nargs="+", default=[10.0])
    parser.add_argument("--wide", action="store_true")
    parser.add_argument("--warm-up", type=float, default=10.0)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    for name, found in PLAYED[given.what](given):
        print(f"{name}: {json.dumps(found) if given.json else said_of(found)}", flush=True)


if __name__ == "__main__":
    main()
