"""The hub as a supervisor has it: reached, lost and reached again, with its clock and the number of hosts on it.

Nobody waits for it: who reports gets a future, which raises Away where there is no answer. What a hub consists of, one
Redis or the nodes of a cluster, is kept reached by cluster.py; it is up while some of it answers. Its clock, and which
hosts there are, is what the node says that has the hosts' key, so that clocks are never mixed.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import Any, NamedTuple, TypeVar

from redis.exceptions import AskError, MovedError, ResponseError, TryAgainError

from edgeproxy.base import log
from edgeproxy.config.parsers import CLUSTERS, HubUrl, remove_password
from edgeproxy.hub import calls
from edgeproxy.hub.breaker import State
from edgeproxy.hub.cluster import Cluster, Nodes, One
from edgeproxy.hub.node import Node
from edgeproxy.hub.redis import HOST_KEPT_SECONDS, HOSTS_KEY, Away, Link, Tls, reason
from edgeproxy.hub.report import Gauge, GaugeTold, Period, PeriodTold, Report, Told

SAMPLES_SECONDS = 60.0
"""Seconds for which a sample of the hub's clock counts."""
SAMPLES_MAX = 200
"""Samples that are kept at most, each the quickest of its part of these seconds."""
REASONS_LOGGED_MAX = 3
"""Different reasons of one loss that are logged at once."""
OTHER_REASONS_SECONDS = 60.0
"""Seconds between two log lines about further reasons: some nodes give another one each time."""
REDIRECTS_MAX = 3
"""Times that a command follows a redirect of a cluster."""

T = TypeVar("T")
Ask = Callable[[Link], "asyncio.Future[Any]"]
Has = Callable[[bytes], bool]


class Sample(NamedTuple):
    """The hub's clock less the monotonic one, half way between the moments at which it was asked and answered."""

    offset: float
    rtt: float
    at: float


class Question(NamedTuple):
    """What is asked of whoever has the key, and who waits for the answer.

    `read`: how the answer to a report reads, given the number of the link over which it came; None where it is no
    report, so that there is no clock in it, and errors are the asking one's to understand.
    """

    key: bytes
    ask: Ask
    answer: "asyncio.Future[Any]"
    read: Callable[[Any, int], Any] | None = None


class Hub:
    """One hub. `run` keeps it reached; `changed` is called when it is lost or reached, or was tried in vain for the
    first time, and when hosts come and go.

    `renewed` is called when a part of a cluster is lost or reached, which may then be a server that has not heard what
    was said last, and when a server has forgotten everything: with a function that tells of which rows' keys.
    """

    def __init__(
        self,
        url: str,
        instance: int,
        changed: Callable[[], None],
        tls: Tls | None = None,
        renewed: Callable[[Has], None] = lambda has: None,
        *,
        hosts: int = 1,
    ) -> None:
        """`hosts`: as many as are known of, until it says."""
        self.name = remove_password(url)
        self._instance = instance
        self._changed = changed
        self._renewed = renewed
        self._samples: deque[Sample] = deque(maxlen=SAMPLES_MAX)
        self._sampled_over = 0
        """The number of the link over which the samples came."""
        self._log = log.get()
        self._logged: dict[str, dict[str, float]] = {}
        """Why something is away, as far as it was logged since it was lost, and when; by node, and "" for all of it."""
        self.is_up = False
        """Whether any node answers."""
        self.tried = False
        """Whether the first attempt to reach it is over, with whatever result."""
        self.hosts = hosts
        """Hosts that the hub knows, this one among them; once it is reached again no fewer at first than before, as
        others may have lost it too, and come back later."""
        self._all_back_at = 0.0
        self.heard_at = 0.0
        """Monotonic time of its last answer."""
        self.errors = 0
        """How often it or a node of it was lost, tried in vain, or refused something."""
        tls = tls or Tls()
        parts = HubUrl.parse(url)
        self._named = len(parts.where)
        self._is_cluster = parts.scheme in CLUSTERS
        self._nodes: Nodes = (
            Cluster(url, tls, partial(self._made, tls), self._searched)
            if self._is_cluster
            else One(url, partial(self._made, tls))
        )

    def _made(self, tls: Tls, url: str) -> Node:
        return Node(url, tls, self._beat, self._node_changed)

    @property
    def why(self) -> str | None:
        """Why the hub is away; None where it is up."""
        if self.is_up:
            return None
        nodes = self._nodes.all
        if not self._is_cluster:
            return nodes[0].why
        return next((f"{node.at}: {node.why}" for node in nodes), self._nodes.why)

    @property
    def breaker(self) -> State:
        """The state of the breaker before it: of all nodes' that which lets most pass."""
        states = [node.breaker.state for node in self._nodes.all]
        order: tuple[State, ...] = ("closed", "half-open", "open")
        return next((state for state in order if state in states), "open")

    @property
    def nodes_away(self) -> int:
        """How many of its nodes do not answer; as long as it is not known which there are, all that the URL names."""
        nodes = self._nodes.all
        return sum(node.link is None for node in nodes) if nodes else self._named

    @property
    def functions_missing(self) -> int:
        """How many of its nodes lack the functions of this version, which this user may not load."""
        return sum(node.lacks_functions for node in self._nodes.all)

    @property
    def rtt(self) -> float:
        """Seconds to the hub and back, of the quickest of the last minute's answers."""
        return min((sample.rtt for sample in self._samples), default=0.0)

    @property
    def offset(self) -> float | None:
        """The hub's clock (Unix time) less the monotonic one, as the quickest of the last minute's answers had it."""
        return min(self._samples, key=lambda sample: sample.rtt).offset if self._samples else None

    async def run(self) -> None:
        """Connect to the hub, and reconnect, until cancelled."""
        await self._nodes.run()

    def status(self) -> dict[str, Any]:
        """The hub's part of `GET /status`."""
        age = round(monotonic() - self.heard_at, 3) if self.heard_at else None
        said: dict[str, Any] = {
            "url": self.name,
            "state": "up" if self.is_up else "away",
            "breaker": self.breaker,
            "age_s": age,
            "hosts": self.hosts,
        }
        if self.why is not None:
            said["why"] = self.why
        if self._is_cluster:
            said["nodes"] = [_node_status(node) for node in sorted(self._nodes.all, key=lambda node: node.at)]
        return said

    # ---- its nodes

    async def _beat(self, node: Node, link: Link) -> None:
        """Send a heartbeat to a node."""
        key = self._nodes.heartbeat(node)
        sent = monotonic()
        try:
            answer = await link.run(calls.HEARTBEAT, [key], [self._instance, HOST_KEPT_SECONDS])
        except (AskError, TryAgainError) as elsewhere:
            # It is well, and the key is on its way to another node, or there.
            if isinstance(elsewhere, MovedError):
                self._nodes.elsewhere(node, elsewhere)
            self._nodes.look()
            return
        try:
            hosts, is_new = calls.heartbeat_told(answer)
            clock = calls.clock_of(answer)
        except ValueError as odd:
            raise Away(str(odd)) from odd
        self.heard_at = monotonic()
        if is_new and link is node.link:
            # It was there a moment ago: the server has been emptied.
            self._renewed(lambda key: self._nodes.of(calls.named_by(key)) is node)
        if key == HOSTS_KEY:
            if link.number != self._sampled_over:
                self._all_back_at = self.heard_at + HOST_KEPT_SECONDS
            self._sampled(link, sent, clock)
            if self.heard_at < self._all_back_at:
                hosts = max(hosts, self.hosts)
            if hosts != self.hosts:
                self.hosts = hosts
                if self.is_up:
                    self._changed()

    def _node_changed(self, node: Node) -> None:
        """A node was reached, lost, or tried in vain."""
        if node.link is None:
            self.errors += 1
            self._nodes.look()
        if not self._is_cluster:
            self._follow()
            return
        turned = self._say(node.at, None if node.link else node.why, "a node of the hub", node=node.at)
        was_up = self.is_up
        self._follow()
        if turned and was_up and self.is_up:
            self._renewed(lambda key: self._nodes.of(calls.named_by(key)) is node)

    def _searched(self) -> None:
        """The nodes of the cluster were looked up."""
        if self._nodes.why is not None:
            self.errors += 1
        self._follow()

    def _follow(self) -> None:
        """Whether it is up follows from its nodes. At first each of them is to be tried, lest some seem to be away."""
        nodes = self._nodes.all
        was_up = self.is_up
        self.is_up = any(node.link for node in nodes) and (was_up or all(node.tried for node in nodes))
        if was_up and not self.is_up:
            self._samples.clear()
        was_tried = self.tried
        if self.is_up or all(node.tried for node in nodes):
            self.tried = True
            self._say("", self.why, "the hub", hosts=self.hosts)
        if (was_up, was_tried) != (self.is_up, self.tried):
            self._changed()

    def _say(self, of: str, why: str | None, what: str, **more: Any) -> bool:
        """Log that something is away and why, once until it is there again, and then that; what is new of it.

        Where that is more and more it is logged seldom: who is no Redis may give another reason each time.
        Returns whether it is new that it is there, or is not.
        """
        logged = self._logged.get(of)
        was_there = logged == {}
        if why is None:
            if not was_there:
                self._logged[of] = {}
                self._log.info(f"{what} is reached", hub=self.name, **more)
            return not was_there
        logged, now = self._logged.setdefault(of, {}), monotonic()
        if why not in logged and (
            len(logged) < REASONS_LOGGED_MAX or now - max(logged.values()) >= OTHER_REASONS_SECONDS
        ):
            logged[why] = now
            if len(logged) > REASONS_LOGGED_MAX:
                del logged[min(logged, key=lambda said: logged[said])]
            self._log.error(f"{what} is away", hub=self.name, **(more | {"why": why}))
        return was_there

    def _sampled(self, link: Link, sent: float, clock: float) -> None:
        """Take the clock of an answer; samples of another link are those of another clock, perhaps."""
        at = now = monotonic()
        if link.number != self._sampled_over:
            self._samples.clear()
            self._sampled_over = link.number
        if self._samples and now - self._samples[-1].at < SAMPLES_SECONDS / SAMPLES_MAX:
            # The quickest of each little while: of thousands a second none would be a minute old.
            if now - sent >= self._samples[-1].rtt:
                return
            at = self._samples.pop().at
        self._samples.append(Sample(clock - (sent + now) / 2, now - sent, at))
        while self._samples[0].at < now - SAMPLES_SECONDS:
            self._samples.popleft()

    # ---- reports

    def rate(self, said: Report) -> "asyncio.Future[Told]":
        """Report a rate."""
        keys, given = calls.rate_call(said)
        return self._run(
            calls.RATE, keys, given, lambda answer, where: calls.rate_told(answer, said)._replace(where=where)
        )

    def period(self, said: Period) -> "asyncio.Future[PeriodTold]":
        """Report a quota."""
        keys, given = calls.period_call(said)
        return self._run(calls.PERIOD, keys, given, lambda answer, _: calls.period_told(answer, said))

    def gauge(self, said: Gauge) -> "asyncio.Future[GaugeTold]":
        """Report what is in use."""
        keys, given = calls.gauge_call(said)
        return self._run(calls.GAUGE, keys, given, lambda answer, _: calls.gauge_told(answer))

    def ask(self, *command: calls.Argument) -> "asyncio.Future[Any]":
        """A command of Redis, whose keys are bytes that have one hash tag; its answer as it comes, or ResponseError."""
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        key = command[3 if command[0] == "EVAL" else 1]
        assert isinstance(key, bytes)
        self._send(Question(key, lambda link: link.ask(*command), answer))
        return answer

    def _run(
        self, name: str, keys: list[bytes], given: list[calls.Argument], read: Callable[[Any, int], T]
    ) -> "asyncio.Future[T]":
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._send(Question(keys[0], lambda link: link.run(name, keys, given), answer, read))
        return answer

    def _send(self, question: Question) -> None:
        """Send this to the node that has the key."""
        self._send_to(self._nodes.of(question.key), question, REDIRECTS_MAX)

    def _send_to(self, node: Node | None, question: Question, times: int, asking: bool = False) -> None:
        link = None if node is None else node.link
        if node is None or link is None:
            question.answer.set_exception(Away((self.why or "no node has it") if node is None else node.why))
            return
        if asking:
            # Of what it is to have the node answers this alone, and only to who says that he was sent.
            link.ask("ASKING").add_done_callback(asyncio.Future.exception)
        question.ask(link).add_done_callback(partial(self._answered, node, link, question, times - 1, monotonic()))

    def _answered(
        self, node: Node, link: Link, question: Question, times: int, sent: float, raw: "asyncio.Future[Any]"
    ) -> None:
        answer, failure = question.answer, raw.exception()
        if answer.done():
            return  # Nobody waits for it any more.
        if failure is None:
            if question.read is None:
                self.heard_at = monotonic()
                answer.set_result(raw.result())
                return
            try:
                told, clock = question.read(raw.result(), link.number), calls.clock_of(raw.result())
            except ValueError as odd:
                # Nothing of it counts, nor what it answers after that: it mixes up answers, or is no Redis.
                link.lose(str(odd))
                answer.set_exception(Away(str(odd)))
                return
            self.heard_at = monotonic()
            if link.number == self._sampled_over:
                self._sampled(link, sent, clock)
            answer.set_result(told)
            return
        if isinstance(failure, AskError) and times:
            try:
                there = self._nodes.elsewhere(node, failure)
            except Away as away:
                answer.set_exception(away)
                return
            if there is not None:
                self._send_to(there, question, times, asking=not isinstance(failure, MovedError))
                return
        if isinstance(failure, ResponseError) and question.read is not None:
            # It is there, and cannot do what it is asked: a replica that may not write, or one without memory.
            self.errors += 1
            self._nodes.look()
            failure = Away(reason(failure))
        answer.set_exception(failure)


def _node_status(node: Node) -> dict[str, Any]:
    said = {"node": node.at, "state": "away" if node.link is None else "up", "breaker": node.breaker.state}
    return said if node.link is not None else said | {"why": node.why}
