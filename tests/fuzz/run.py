"""A run: hundreds of conversations through a real edge, and checks of the edge afterwards."""

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable
from pathlib import Path
from time import monotonic, sleep

from loadtest.testbed.edge import Edge, total
from tests.fuzz import record
from tests.fuzz.client import Client
from tests.fuzz.oracle import judge
from tests.fuzz.record import TIMEOUT, Copy, Talk
from tests.fuzz.script import conversation
from tests.fuzz.upstream import Connection, Upstream

AT_ONCE = 64
KEPT = 4000
"""The number of finished conversations that are kept, because their requests may still reach the upstream."""

SETTLE = TIMEOUT + 1.0
"""Seconds that both sides may take to learn everything about a conversation."""

BETWEEN_LOOKS = 0.1
"""Seconds between two reads of the edge's metrics. One read costs both sides about 10 ms of a core."""

GROWTH = 96 << 20
"""The growth in bytes that a worker may show: many times the most that simultaneous conversations can hold."""

KINDS = ("client", "request", "reply", "edge says")
"""Prefixes of counters that have one counter for each kind."""

QUICK = {
    "limits": {
        **dict.fromkeys(("header_timeout", "body_idle"), f"{TIMEOUT}s"),
        "keepalive_idle": f"{TIMEOUT + 1}s",
        "body": "8MiB",
    },
    "drain": "5s",
}
TIMEOUTS = dict.fromkeys(("connect", "response_head", "idle"), f"{TIMEOUT}s")


def edge_before(folder: Path, upstream: Upstream) -> Edge:
    """Return the edge to fuzz. It is not started yet."""
    *often, seldom = (f"http://127.0.0.1:{port}" for port in upstream.ports)
    routes = [
        {"name": "open", "path": "/f/*", "upstream": "api", "auth": "none"},
        {"name": "seldom", "path": "/s/*", "upstream": "seldom", "auth": "none"},
        {"name": "keyed", "path": "/k/*", "upstream": "api"},
        {"name": "root", "path": "/", "upstream": "api", "auth": "none"},
        {"name": "short", "path": "/a", "upstream": "api", "auth": "none"},
    ]
    upstreams = {
        "api": {"endpoints": often, "timeouts": TIMEOUTS},
        "seldom": {"endpoints": [seldom], "timeouts": TIMEOUTS},
    }
    return Edge(folder, upstream.ports[0], upstreams=upstreams, routes=routes, **QUICK)


class Run:
    """One run of the conversations `numbers`, in order. It ends after the last one or after the first defect."""

    def __init__(self, seed: int, numbers: Iterable[int], *, at_once: int = AT_ONCE, keep_going: bool = False) -> None:
        self.seed = seed
        self.counts: Counter[str] = Counter()
        self.defects: list[str] = []
        self.shown: list[str] = []
        """The transcripts of all conversations, if `show` is set."""
        self._numbers = iter(numbers)
        self._at_once = at_once
        self._keep_going = keep_going
        self._talks: OrderedDict[str, Talk] = OrderedDict()
        self._judged: set[str] = set()
        self._large: deque[tuple[float, Talk]] = deque()
        """Judged conversations with the time of judgement.

        Large ones are forgotten once no bytes of theirs can be in flight.
        """
        self._ordinal = 0
        self._began = monotonic()
        self.upstream = Upstream(self._talks.get, self._report)
        self.upstream.over = self._over

    @property
    def seconds(self) -> float:
        """Return the seconds since the run began."""
        return monotonic() - self._began

    async def through(self, edge: Edge, *, show: bool = False, tell: Callable[[str], None] | None = None) -> None:
        """Run all conversations through this edge, then check the edge."""
        async with asyncio.TaskGroup() as group:
            serving = group.create_task(self.upstream.run())
            await asyncio.to_thread(edge.start)
            before = Edges(edge)
            self._began = monotonic()
            async with asyncio.TaskGroup() as talking:
                for _ in range(self._at_once):
                    talking.create_task(self._talk_on(edge.port, show, tell))
            if not self.defects:
                await asyncio.to_thread(self._look_at, edge, before)
            serving.cancel()

    async def _talk_on(self, port: int, show: bool, tell: Callable[[str], None] | None) -> None:
        """Run one conversation after another."""
        for number in self._numbers:
            if self.defects and not self._keep_going:
                return
            talk = self._begin(number)
            await Client(talk, port).run()
            await self._judge(talk)
            if show:
                self.shown.append(transcript(talk, record.KEPT))
            self._large.append((monotonic(), talk))
            if tell is not None and self.counts["conversations"] % 5000 == 0:
                tell(self.summary())

    def _begin(self, number: int) -> Talk:
        self._ordinal += 1
        n = self._ordinal
        # Each conversation has its own client address. The upstream finds the conversation by the forwarded address.
        address = f"127.{16 + (n >> 16) % 200}.{n >> 8 & 255}.{n & 255}"
        talk = self._talks[address] = Talk(conversation(self.seed, number), address)
        while self._large and self._large[0][0] < monotonic() - SETTLE / 2:
            self._large.popleft()[1].forget()
        while len(self._talks) > KEPT:
            self._judged.discard(self._talks.popitem(last=False)[0])
        return talk

    # ---- judging

    async def _judge(self, talk: Talk) -> None:
        """Judge a conversation when its requests are finished.

        Repeat this while the upstream has not seen everything.
        """
        until = monotonic() + SETTLE
        verdict = judge(talk)
        while monotonic() < until and (verdict.wrong or not all(copy.done for copy in talk.copies)):
            await asyncio.sleep(0.02)
            verdict = judge(talk)
        if not all(copy.done for copy in talk.copies):
            self._report("the upstream was kept busy for a conversation that is over", talk, None)
        self.counts["conversations"] += 1
        self.counts[f"client {talk.conversation.kind}"] += 1
        self.counts.update(verdict.counts)
        for copy in talk.copies:
            self.counts["reply raced" if copy.raced else f"reply {copy.reply.kind if copy.reply else '-'}"] += 1
        for planned in talk.conversation.planned:
            self.counts[f"request {planned.kind}"] += 1
        self._judged.add(talk.address)
        for wrong in verdict.wrong:
            self._report(wrong, talk, None)

    def _over(self, copy: Copy) -> None:
        """Judge a conversation again if it was judged before this forwarded request was finished."""
        for talk in copy.connection.talks:
            if copy in talk.copies and talk.address in self._judged:
                for wrong in judge(talk).wrong:
                    self._report(f"later: {wrong}", talk, copy.connection)

    def _report(self, what: str, talk: Talk | None, connection: Connection | None) -> None:
        if len(self.defects) > 20:
            return
        parts = [f"DEFECT: {what}"]
        if talk is not None:
            parts.append(transcript(talk))
        if connection is not None:
            numbers = [talk.conversation.number for talk in connection.talks]
            parts.append(f"upstream connection {connection.number} has served conversations {numbers}:")
            parts += [f"  {'':9} {event} {shown(data, size)}" for event, data, size in connection.events]
        self.defects.append("\n".join(parts))

    # ---- the edge afterwards

    def _look_at(self, edge: Edge, before: "Edges") -> None:
        after = Edges(edge)
        if before.workers != after.workers or after.restarts:
            self._report(f"workers were {before.workers} and are {after.workers}", None, None)
        if edge.trouble():
            self._report(f"the edge's log: {edge.trouble()[:5]}", None, None)
        for pid, size in after.memory.items():
            self.counts["MiB most in a worker"] = max(self.counts["MiB most in a worker"], size >> 20)
            if size > before.memory.get(pid, 0) + GROWTH:
                self._report(f"worker {pid} grew to {size >> 20} MiB", None, None)
        if left := left_open(edge):
            self._report(f"connections that nobody has any more: {left}", None, None)

    def summary(self) -> str:
        """Return the counts by kind, and the rate of the run."""
        counts = self.counts
        rate = counts["conversations"] / max(self.seconds, 0.001) * 60
        lines = [f"EDGEPROXY_SEED={self.seed}: {self.seconds:.0f} s, {rate:.0f} conversations a minute"]
        of_kind = tuple(f"{kind} " for kind in KINDS)
        lines.append(", ".join(f"{counts[name]} {name}" for name in sorted(counts) if not name.startswith(of_kind)))
        for kind in KINDS:
            found = {name.removeprefix(f"{kind} "): n for name, n in counts.items() if name.startswith(f"{kind} ")}
            lines.append(f"  {kind}: " + ", ".join(f"{n} {name}" for name, n in sorted(found.items())))
        return "\n".join(lines)


class Edges:
    """A snapshot of the edge's workers: process ids, restarts and memory."""

    def __init__(self, edge: Edge) -> None:
        self.workers = sorted(edge.worker_pids())
        self.restarts = total(edge.metrics(), "edge_worker_restarts_total")
        self.memory = {pid: peak(pid) for pid in self.workers}


def peak(pid: int) -> int:
    """Return the peak memory of a process, in bytes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))


def left_open(edge: Edge, seconds: float = 3.0 * TIMEOUT) -> dict[str, float]:
    """Return the number of connections that are open after all timeouts have passed, by side.

    An empty result means none.
    """
    until = monotonic() + seconds
    while True:
        samples = edge.metrics()
        left = {side: total(samples, "edge_connections", side=side) for side in ("client", "upstream")}
        if not any(left.values()) or monotonic() > until:
            return {side: n for side, n in left.items() if n}
        sleep(BETWEEN_LOOKS)


def transcript(talk: Talk, most: int = 400) -> str:
    """Return the events of a conversation and the command that repeats it."""
    made = talk.conversation
    lines = [
        f"seed {made.seed}, conversation {made.number} ({made.kind}), client {talk.address}, ended: {talk.ended}",
        f"again: python -m tests.fuzz --seed {made.seed} --only {made.number}",
        f"  requests: {[(each.kind, each.method.decode('latin-1')) for each in made.planned]}, sound: {made.sound}",
        f"  replies: {[(reply.kind, reply.end) for reply in made.replies.values()]}",
    ]
    lines += [f"  {at:9.4f} {what} {shown(data, size, most)}" for at, what, data, size in talk.events]
    return "\n".join(lines)


def shown(data: bytes, size: int, most: int = 400) -> str:
    """Return bytes in a readable form: the first `most` of them, and their number."""
    if not data:
        return ""
    return repr(data) if size <= min(most, len(data)) else f"{data[:most]!r}… ({size} bytes)"
