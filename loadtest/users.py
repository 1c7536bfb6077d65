"""The load test's clients as Locust users: a class for each kind of client, and `Arrivals`, which starts due requests.

The client classes are `abstract`, so Locust's dispatcher does not start them. `Arrivals` takes an idle client or
creates one.
"""

import gc
import os
import random
import time
from collections import defaultdict, deque
from itertools import count
from typing import Any

import gevent
from gevent.pool import Group
from locust import FastHttpUser, User, task
from locust.exception import StopUser
from locust.runners import WorkerRunner

from loadtest import record
from loadtest.client import NotConnected, Way, Ways, session
from loadtest.record import NO_REGION, Request
from loadtest.requests import KEY_FIELD, OTHER, Filled, Template, fill, name_of
from loadtest.schedule import Arrival, Kind, Phase, Recorded, arrivals, share
from loadtest.timer import KernelTimer
from loadtest.workload import BAD_KEY, DIRECT, SLOW_READER

REPORT, PATIENCE, LAST_ANSWERS = 1.0, 5.0, 11.0
"""Seconds between two reports; of lag before a worker gives up; of waiting for the last answers."""
MIN_SLEEP, MAX_UNDER_WAY = 0.0005, 1000
"""The least sleep saves wake-ups at high rates. Beyond this many requests under way, further requests wait for a place,
and that wait is no lag.
"""
BUSY = 0.8
"""A worker that uses this share of a core delays its own answers."""
PATH = "/v1/x"
SLOW_BYTES, SLOW_RATE = 64 << 10, 32 << 10
"""The size of a slow reader's response, and the bytes of it that the reader takes per second."""


class FromIntendedStart:
    """Replaces Locust's request event, so that response times count from the moment when the request was due."""

    def __init__(self, user: "Client", way: Way) -> None:
        self._user, self._way = user, way

    def fire(self, **meta: Any) -> None:
        """Record the result of an attempt. Locust learns it only if no other attempt follows."""
        self._user.attempted(self._way, meta)


class Client(FastHttpUser):
    """A virtual user with one connection at a time to each region. Its task is its request."""

    abstract = True

    def __init__(self, environment: Any, run: "Run", home: int, source: str | None) -> None:
        self.host = "http://nowhere"  # Locust requires a host; each session has its own.
        super().__init__(environment)
        self.run_, self.home, self._source = run, home, source
        self._sessions: dict[Way, tuple[int, Any]] = {}
        self.due = self.sent = self.lag = 0.0
        self.kind, self.asked = "", Arrival(0.0, "", "", 0)
        self._meta: dict[str, Any] = {}

    def take(self, one: Arrival, lag: float) -> None:
        """Send a request that is due to the first region that accepts it."""
        self.due, self.lag, self.sent = one.due, lag, self.run_.clock()
        self.kind, self.asked = one.kind, one
        status, way = record.UNREACHABLE, Way(self.home, "")
        end = self.sent
        for way in self.ways():
            self._meta = {}
            self.client = self._session(way)
            self.tasks[0](self)  # type: ignore[operator]  # A plain function, because the class holds it.
            status, end = self._meta["status"], self._meta["end"]
            if status != record.UNREACHABLE:
                break
        self._tell_locust(status, end)
        self.run_.answered(
            Request(
                self.due, end - self.due, end - self.sent, lag, self.run_.worker, self.home,
                way.region, self.run_.kinds[self.kind], one.person, status, self.run_.number_of(one),
            )
        )  # fmt: skip

    def ways(self) -> list[Way]:
        """Return the regions to try, in order."""
        return self.run_.ways.of(self.home)

    @property
    def customer(self) -> str:
        """The customer who sends the current request."""
        return f"{self.kind}-{self.asked.person}"

    def key(self) -> str | None:
        """Return the API key that the request carries."""
        return self.run_.key(self.customer)

    def fields(self) -> dict[str, str]:
        """Return further header fields of the request."""
        return {}

    @task
    def ask(self) -> None:
        """Send the current request; Locust runs this task."""
        self.once()

    def once(self) -> None:
        """Send one request."""
        self.send(f"{PATH}?size={self.asked.size}" if self.asked.size else PATH)

    def send(self, usual: str, note: str = "", **how: Any) -> Any:
        """Send the due request, or the usual one if the arrival has no template. Return the response."""
        one, template, key = self.asked, self.run_.template_of(self.asked), self.key()
        if template is None:
            key_field = {KEY_FIELD: key} if key else {}
            filled, name = Filled(usual, key_field, b""), f"{one.method} {PATH}"
        else:
            filled, name = fill(template, self.customer, key, self.run_.random), template.name
        return self.client.request(
            one.method if template is None else template.method,
            filled.path,
            name=name + note,
            headers=filled.headers | self.fields(),
            data=filled.body or None,  # type: ignore[arg-type]  # Locust's annotation lacks bytes.
            allow_redirects=False,
            **how,
        )

    def _session(self, way: Way) -> Any:
        closings, created = self._sessions.get(way, (-1, None))
        if closings != self.run_.ways.closings[way]:
            if created is not None:
                created.client.clientpool.close()
            created = session(way.url, FromIntendedStart(self, way), self, self._source)
            self._sessions[way] = self.run_.ways.closings[way], created
        return created

    def attempted(self, way: Way, meta: dict[str, Any]) -> None:
        """Record the result of an attempt on a way, from Locust's event."""
        self._meta = meta | {"end": self.run_.clock(), "status": self._status(meta)}
        if self._meta["status"] == record.UNREACHABLE:
            self.run_.ways.closed(way)
        else:
            self.run_.ways.opened(way)

    @staticmethod
    def _status(meta: dict[str, Any]) -> int:
        response, error = meta["response"], meta["exception"]
        if isinstance(error, NotConnected):
            return record.UNREACHABLE
        if response is not None and response.status_code:
            # A response whose body breaks off counts as broken.
            whole = error is None or getattr(response, "error", None) is error
            return int(response.status_code) if whole else record.BROKEN
        return record.TIMED_OUT if isinstance(error, TimeoutError) else record.BROKEN

    def _tell_locust(self, status: int, end: float) -> None:
        """Report a row for each region and kind. Refusals may be expected: they have rows of their own and are no
        failures.
        """
        meta = {name: value for name, value in self._meta.items() if name not in ("end", "status")}
        if not meta:
            return
        if status == 429 or (status == 401 and self.kind == BAD_KEY):
            meta["exception"] = None
        region = DIRECT if self.kind == DIRECT else self.run_.regions[self.home]
        name = f"{region} {self.kind} {meta['name']}" + (" 429" if status == 429 else "")
        self.environment.events.request.fire(**meta | {"name": name, "response_time": (end - self.due) * 1e3})


class Keyed(Client):
    """A client with a key: customers of a tier, and customers that come in bursts."""

    abstract = True


class Anonymous(Client):
    """A client without a key and with an address of its own, which it states itself if a relay of ours is between."""

    abstract = True

    def key(self) -> None:
        return None

    def fields(self) -> dict[str, str]:
        return {"X-Forwarded-For": self._source} if self._source else {}


class BadKey(Client):
    """A client with an unknown key, a new one for each request."""

    abstract = True

    def key(self) -> str:
        return f"nobody-has-{os.urandom(8).hex()}"


class SlowReader(Client):
    """A client that reads 32 KiB of a response per second. Its response time ends at the first byte."""

    abstract = True

    def once(self) -> None:
        """Send one request and read its response: the usual one up to the requested bytes, a template's to its end."""
        answer = self.send(f"{PATH}?size={SLOW_BYTES}", " slowly", stream=True)
        if self._meta["status"] != 200:
            return
        piece, left = SLOW_RATE // 8, SLOW_BYTES
        own = self.run_.template_of(self.asked) is not None
        try:
            while left > 0 or own:
                got = len(answer._response.read(piece))
                if not got:
                    self._meta["status"] = 200 if own else record.BROKEN
                    return
                left -= got
                gevent.sleep(got / SLOW_RATE)
        except OSError:
            self._meta["status"] = record.BROKEN


class Direct(Anonymous):
    """The control: its requests go to the upstream directly."""

    abstract = True

    def ways(self) -> list[Way]:
        return [Way(NO_REGION, self.run_.direct[self.run_.regions[self.home]])]


CLASSES: dict[str, type[Client]] = {BAD_KEY: BadKey, SLOW_READER: SlowReader, DIRECT: Direct}
"""Client classes by kind. Other kinds are tiers: their requests carry keys or come from addresses. A custom locustfile
may add classes here for the tiers of its workload.
"""


class Run:
    """A run as one sending process knows it: the plan, and the results not yet reported."""

    def __init__(self, plan: dict[str, Any]) -> None:
        self.plan = plan
        self.started = False
        self.worker: int = plan["worker"]
        self.regions: list[str] = [*plan["regions"]]
        self.kinds = {name: number for number, name in enumerate(plan["kinds"])}
        self.direct: dict[str, str] = plan["direct"]
        self._templates = [Template(*one) for one in plan.get("requests", ())]
        self._names = {name: number for number, name in enumerate(plan.get("names", ()), 1)}
        self.random = random.Random(f"{plan['seed']} values {plan['worker']}")
        self.ways = Ways({int(home): [Way(*way) for way in ways] for home, ways in plan["ways"].items()})
        self.rows = bytearray()
        self.unfinished: dict[int, tuple[Arrival, float, float]] = {}
        """Requests under way, by greenlet: the arrival, its start time, and its lag."""
        self._origin: float = time.perf_counter() + plan["begin"] - time.time()
        self.cpu, self.waited = time.process_time(), waited_for_cpu()
        """Seconds of CPU that the process had used before the run, and seconds for which it had waited for a CPU."""

    def clock(self) -> float:
        """Return the seconds since the beginning of the run."""
        return time.perf_counter() - self._origin

    def key(self, customer: str) -> str:
        """Return the API key of a customer."""
        keys: dict[str, str] = self.plan["keys"]
        return keys.get(customer) or f"key-of-{customer}"

    def template_of(self, one: Arrival) -> Template | None:
        """Return the template of an arrival's request, or None for the usual request."""
        if one.path:
            return Template(1.0, name_of(one.method, one.path), one.method, one.path, {}, b"")
        return None if one.request < 0 else self._templates[one.request]

    def number_of(self, one: Arrival) -> int:
        """Return the number of the request's name in reports, from 1; 0 for the usual request."""
        template = self.template_of(one)
        return 0 if template is None else self._names.get(template.name) or self._names[OTHER]

    def answered(self, one: Request) -> None:
        """Record the result of a request."""
        self.rows += one.packed()

    def take(self) -> bytes:
        """Return the rows since the last call."""
        rows, self.rows = bytes(self.rows), bytearray()
        return rows

    def schedule(self) -> Any:
        """Return all arrivals of the plan."""
        weights = [template.weight for template in self._templates]
        return arrivals(phases(self.plan), self.plan["regions"], kinds(self.plan), self.plan["seed"], weights)


def phases(plan: dict[str, Any]) -> list[Phase | Recorded]:
    """Return the phases of a plan."""
    return [Recorded(*phase) if isinstance(phase[1], list | tuple) else Phase(*phase) for phase in plan["phases"]]


def kinds(plan: dict[str, Any]) -> dict[str, Kind]:
    """Return the kinds of a plan."""
    return {name: Kind(*kind) for name, kind in plan["kinds"].items()}


class Arrivals(User):
    """Runs once on each worker: plays the worker's share of the schedule and starts requests when they are due."""

    @task
    def play(self) -> None:
        """Play the whole share."""
        run: Run = self.environment.run
        if run.started:
            raise StopUser  # Locust moves a lost worker's users to the others; such a run is invalid anyway.
        run.started = True
        timer, under_way = KernelTimer(), Group()
        idle: defaultdict[Any, deque[Client]] = defaultdict(deque)
        homes = {name: number for number, name in enumerate(run.regions)}
        numbers = count()
        anonymous, loopback = run.plan["anonymous"], run.plan["loopback"]
        gc.collect()
        gc.freeze()

        def request(one: Arrival, lag: float, spawned: float) -> None:
            lag += run.clock() - spawned  # Other greenlets of this process ran first.
            address = one.kind in anonymous
            users = idle[one.region, one.kind, one.person if address else -1]
            if users:
                user = users.popleft()  # The user that was idle longest, so that all connections are used.
            else:
                made = CLASSES.get(one.kind) or (Anonymous if address else Keyed)
                source = None
                if loopback:
                    source = f"127.0.2.{1 + one.person}" if address else f"127.0.1.{1 + next(numbers) % 250}"
                user = made(self.environment, run, homes[one.region], source)
            mark = id(user)
            run.unfinished[mark] = one, run.clock(), lag
            user.take(one, lag)
            del run.unfinished[mark]
            users.append(user)

        reporter = gevent.spawn(self._report_regularly)
        full_until, gave_up = 0.0, False
        for one in share(run.schedule(), run.worker, len(run.plan["workers"])):
            if (early := one.due - run.clock()) > 0:
                timer.sleep(max(early, MIN_SLEEP))
            # A wait for a place is the fault of a server that does not answer, so it is no lag of ours. But a busy
            # process reads its answers late, therefore has no free place, and wakes up late.
            if (lag := max(run.clock() - max(one.due, full_until), 0.0)) > PATIENCE:
                gave_up = True
                break
            while len(under_way) >= MAX_UNDER_WAY:
                before, worked = run.clock(), time.process_time()
                timer.sleep(MIN_SLEEP)
                after = run.clock()
                if time.process_time() - worked < BUSY * (after - before):
                    full_until = after
                lag = max(lag, after - before - MIN_SLEEP)
            under_way.spawn(request, one, lag, run.clock())
        under_way.join(LAST_ANSWERS)
        timer.close()
        now = run.clock()
        for one, sent, lag in run.unfinished.values():
            home = homes[one.region]
            run.answered(
                Request(
                    one.due, now - one.due, now - sent, lag, run.worker, home, home,
                    run.kinds[one.kind], one.person, record.UNFINISHED, run.number_of(one),
                )
            )  # fmt: skip
        reporter.kill()
        self._report(finished=True, gave_up=gave_up)
        raise StopUser

    def _report_regularly(self) -> None:
        while True:
            gevent.sleep(REPORT)
            self._report()

    def _report(self, finished: bool = False, gave_up: bool = False) -> None:
        runner, run = self.environment.runner, self.environment.run
        report = {"rows": run.take(), "worker": run.worker, "pid": os.getpid()}
        report |= {"cpu": time.process_time() - run.cpu, "ready": waited_for_cpu() - run.waited}
        report |= {"finished": finished, "gave_up": gave_up}
        if isinstance(runner, WorkerRunner):
            runner.send_message("measured", report)
        else:
            self.environment.joined.receive(report)


def waited_for_cpu() -> float:
    """Return the seconds for which this process was ready but had no CPU (schedstat); 0 if the kernel does not tell."""
    try:
        with open("/proc/self/schedstat") as stream:
            return int(stream.read().split()[1]) / 1e9
    except (OSError, IndexError, ValueError):
        return 0.0
