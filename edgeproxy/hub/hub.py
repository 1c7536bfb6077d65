"""The supervisor's access to the hub: it connects and reconnects, and knows the hub's clock and number of hosts.

A report never blocks. It returns a future, which raises HubUnavailableError if there is no answer. cluster.py maintains
the connection to the one Redis or to the nodes of a cluster. The hub is up while any of them answers. Its clock and its
number of hosts come from the node with the hosts' key, so that different clocks are never mixed.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import NamedTuple, TypeVar

from redis.exceptions import AskError, MovedError, ResponseError, TryAgainError

from edgeproxy.base import log
from edgeproxy.base.json_values import JsonObject
from edgeproxy.config.hub_settings import CLUSTERS, HubUrl, remove_password
from edgeproxy.hub import calls
from edgeproxy.hub.bounds import format_excerpt
from edgeproxy.hub.breaker import State
from edgeproxy.hub.calls import RedisAnswer
from edgeproxy.hub.cluster import Cluster, Nodes, SingleNode
from edgeproxy.hub.errors import HubUnavailableError
from edgeproxy.hub.node import LOG_SILENCE_SECONDS, Node
from edgeproxy.hub.redis import HOST_RETENTION_SECONDS, HOSTS_KEY, Link, Tls, format_error
from edgeproxy.hub.report import Gauge, GaugeTotal, Period, PeriodTotal, Report, ReportAnswer

SAMPLES_SECONDS = 60.0
"""Seconds before a sample of the hub's clock becomes invalid."""
SAMPLES_MAX = 200
"""Maximum number of samples. Each is the quickest of its part of these seconds."""
REASONS_LOGGED_MAX = 3
"""Maximum number of different reasons for one loss that are logged at once."""
OTHER_REASONS_SECONDS = 60.0
"""Seconds between two log lines about further reasons, because some nodes give a new one each time."""
REDIRECTS_MAX = 3
"""Maximum number of redirects of a cluster that a command follows."""

T = TypeVar("T")
Ask = Callable[[Link], "asyncio.Future[RedisAnswer]"]
KeyFilter = Callable[[bytes], bool]


class Sample(NamedTuple):
    """The hub's clock minus the monotonic clock, at the midpoint between a command and its answer."""

    offset: float
    rtt: float
    at: float


class PendingCommand(NamedTuple):
    """A command for the node of the key, and the future of its answer.

    `read` parses the answer to a report. Its second argument is the number of the link that brought the answer. It is
    None for other commands: their answers contain no clock, and their errors are passed to the caller.
    """

    key: bytes
    ask: Ask
    answer: "asyncio.Future[RedisAnswer]"
    read: Callable[[RedisAnswer, int], object] | None = None


class Hub:
    """One hub. `run` maintains the connection.

    `changed` is called when the hub is lost or reached, when the first attempt fails, and when hosts come and go.
    `renewed` is called when a node of a cluster is lost or reached, because that node may be a server without the last
    reports, and when a server has lost all its data. Its argument is a function that tells whether a row's key is
    affected.
    """

    def __init__(
        self,
        url: str,
        instance: int,
        changed: Callable[[], None],
        tls: Tls | None = None,
        renewed: Callable[[KeyFilter], None] = lambda has: None,
        *,
        hosts: int = 1,
    ) -> None:
        """`hosts`: the assumed number of hosts until the hub reports it."""
        self.name = remove_password(url)
        self._instance = instance
        self._changed = changed
        self._renewed = renewed
        self._samples: deque[Sample] = deque(maxlen=SAMPLES_MAX)
        self._sampled_link = 0
        """The number of the link that brought the samples."""
        self._log = log.get_logger()
        self._rare_log = log.RateLimitedLog(LOG_SILENCE_SECONDS)
        self._logged: dict[str, dict[str, float]] = {}
        """The logged reasons of each loss with their times, by node. The key "" is the whole hub."""
        self.is_up = False
        """True if any node answers."""
        self.tried = False
        """True once the first attempt to reach it has ended, with any result."""
        self.hosts = hosts
        """Hosts of the hub, including this one.

        After a reconnection the number does not decrease at first, because other hosts may have lost the hub too and
        reconnect later.
        """
        self._all_back_at = 0.0
        self.last_answer_at = 0.0
        """Monotonic time of its last answer."""
        self.errors = 0
        """Count of losses, failed attempts and refusals of the hub or its nodes."""
        parts = HubUrl.parse(url)
        self._seed_count = len(parts.where)
        self._is_cluster = parts.scheme in CLUSTERS
        make = partial(self._create_node, tls or Tls())
        self._nodes: Nodes = (
            Cluster(url, tls or Tls(), make, self._on_nodes_changed) if self._is_cluster else SingleNode(url, make)
        )

    def _create_node(self, tls: Tls, url: str) -> Node:
        return Node(url, tls, self._send_heartbeat, self._on_node_changed)

    @property
    def why(self) -> str | None:
        """The reason why the hub is not reached. None: it is up."""
        if self.is_up:
            return None
        nodes = self._nodes.all
        if not self._is_cluster:
            return nodes[0].why
        return next((f"{node.at}: {node.why}" for node in nodes), self._nodes.why)

    @property
    def breaker(self) -> State:
        """The state of its breaker: the most permissive state of all nodes."""
        states = [node.breaker.state for node in self._nodes.all]
        order: tuple[State, ...] = ("closed", "half-open", "open")
        return next((state for state in order if state in states), "open")

    @property
    def nodes_away(self) -> int:
        """Number of nodes that do not answer. While the nodes are unknown, it is the number of nodes in the URL."""
        nodes = self._nodes.all
        return sum(node.link is None for node in nodes) if nodes else self._seed_count

    @property
    def functions_missing(self) -> int:
        """Number of nodes that lack the functions of this version and do not permit this user to load them."""
        return sum(node.lacks_functions for node in self._nodes.all)

    @property
    def rtt(self) -> float:
        """Round-trip seconds of the quickest answer of the last minute."""
        return min((sample.rtt for sample in self._samples), default=0.0)

    @property
    def offset(self) -> float | None:
        """The hub's clock (Unix time) minus the monotonic clock, from the quickest answer of the last minute."""
        return min(self._samples, key=lambda sample: sample.rtt).offset if self._samples else None

    async def run(self) -> None:
        """Connect to the hub, and reconnect, until cancelled."""
        await self._nodes.run()

    def status(self) -> JsonObject:
        """Return the hub's part of `GET /status`."""
        age = round(monotonic() - self.last_answer_at, 3) if self.last_answer_at else None
        status: JsonObject = {
            "url": self.name,
            "state": "up" if self.is_up else "away",
            "breaker": self.breaker,
            "age_s": age,
            "hosts": self.hosts,
        }
        if self.why is not None:
            status["why"] = self.why
        if self._is_cluster:
            status["nodes"] = [_node_status(node) for node in sorted(self._nodes.all, key=lambda node: node.at)]
        return status

    # ---- nodes

    async def _send_heartbeat(self, node: Node, link: Link) -> None:
        """Send a heartbeat to a node."""
        key = self._nodes.heartbeat_key(node)
        sent = monotonic()
        try:
            answer = await link.call_function(calls.HEARTBEAT, [key], [self._instance, HOST_RETENTION_SECONDS])
        except (AskError, TryAgainError) as error:
            # The node works. The key is moving to another node, or has moved.
            if isinstance(error, MovedError):
                self._nodes.follow_redirect(node, error)
            self._nodes.refresh_soon()
            return
        try:
            hosts, is_new = calls.parse_heartbeat_answer(answer)
            clock = calls.parse_clock(answer)
        except ValueError as error:
            raise HubUnavailableError(str(error)) from error
        self.last_answer_at = monotonic()
        if is_new and link is node.link:
            # The node knew this host a moment ago, so its server has lost its data.
            self._rare_log.info("the hub had forgotten this host, which reports all again", node.at, hub=self.name)
            self._renewed(lambda key: self._nodes.find_node(calls.key_prefix(key)) is node)
        if key == HOSTS_KEY:
            if link.number != self._sampled_link:
                self._all_back_at = self.last_answer_at + HOST_RETENTION_SECONDS
            self._record_sample(link, sent, clock)
            if self.last_answer_at < self._all_back_at:
                hosts = max(hosts, self.hosts)
            if hosts != self.hosts:
                self.hosts = hosts
                if self.is_up:
                    self._changed()

    def _on_node_changed(self, node: Node) -> None:
        """Update the state after a node was reached, lost, or tried without success."""
        if node.link is None:
            self.errors += 1
            self._nodes.refresh_soon()
        if not self._is_cluster:
            self._update_state()
            return
        has_changed = self._log_state(node.at, None if node.link else node.why, "a node of the hub", node=node.at)
        was_up = self.is_up
        self._update_state()
        if has_changed and was_up and self.is_up:
            self._renewed(lambda key: self._nodes.find_node(calls.key_prefix(key)) is node)

    def _on_nodes_changed(self) -> None:
        """Update the state after a query of the cluster's nodes."""
        if self._nodes.why is not None:
            self.errors += 1
        self._update_state()

    def _update_state(self) -> None:
        """Update whether the hub is up, from the state of its nodes.

        At the start it waits until each node was tried, because otherwise some would seem to be lost.
        """
        nodes = self._nodes.all
        was_up = self.is_up
        self.is_up = any(node.link for node in nodes) and (was_up or all(node.tried for node in nodes))
        if was_up and not self.is_up:
            self._samples.clear()
        was_tried = self.tried
        if self.is_up or all(node.tried for node in nodes):
            self.tried = True
            self._log_state("", self.why, "the hub", hosts=self.hosts)
        if (was_up, was_tried) != (self.is_up, self.tried):
            self._changed()

    def _log_state(self, subject: str, why: str | None, what: str, **fields: object) -> bool:
        """Log that something is lost and why, once per reason, and log its return. Return whether its state is new.

        Further reasons are logged seldom, because a server that is not Redis may give a new reason each time.
        """
        logged = self._logged.get(subject)
        was_there = logged == {}
        if why is None:
            if not was_there:
                self._logged[subject] = {}
                self._log.info(f"{what} is reached", hub=self.name, **fields)
            return not was_there
        logged, now = self._logged.setdefault(subject, {}), monotonic()
        if why not in logged and (
            len(logged) < REASONS_LOGGED_MAX or now - max(logged.values()) >= OTHER_REASONS_SECONDS
        ):
            logged[why] = now
            if len(logged) > REASONS_LOGGED_MAX:
                del logged[min(logged, key=logged.__getitem__)]
            self._log.error(f"{what} is away", hub=self.name, **(fields | {"why": why}))
        return was_there

    def _record_sample(self, link: Link, sent: float, clock: float) -> None:
        """Record the clock in an answer. Samples of another link are dropped, because its clock may differ."""
        at = now = monotonic()
        if link.number != self._sampled_link:
            self._samples.clear()
            self._sampled_link = link.number
        if self._samples and now - self._samples[-1].at < SAMPLES_SECONDS / SAMPLES_MAX:
            # Only the quickest sample of each interval is stored. Otherwise thousands per second would displace older
            # ones.
            if now - sent >= self._samples[-1].rtt:
                return
            at = self._samples.pop().at
        self._samples.append(Sample(clock - (sent + now) / 2, now - sent, at))
        while self._samples[0].at < now - SAMPLES_SECONDS:
            self._samples.popleft()

    # ---- reports

    def report_rate(self, report: Report) -> "asyncio.Future[ReportAnswer]":
        """Report a rate."""
        keys, arguments = calls.build_rate_call(report)
        return self._call_function(
            calls.RATE,
            keys,
            arguments,
            lambda answer, where: calls.parse_rate_answer(answer, report)._replace(where=where),
        )

    def report_period(self, period: Period) -> "asyncio.Future[PeriodTotal]":
        """Report a quota."""
        keys, arguments = calls.build_period_call(period)
        return self._call_function(
            calls.PERIOD, keys, arguments, lambda answer, _: calls.parse_period_answer(answer, period)
        )

    def report_gauge(self, gauge: Gauge) -> "asyncio.Future[GaugeTotal]":
        """Report a number in use."""
        keys, arguments = calls.build_gauge_call(gauge)
        return self._call_function(calls.GAUGE, keys, arguments, lambda answer, _: calls.parse_gauge_answer(answer))

    def ask(self, *command: calls.Argument) -> "asyncio.Future[RedisAnswer]":
        """Send a command whose first argument is its key. The future has the raw answer, or raises ResponseError."""
        answer: asyncio.Future[RedisAnswer] = asyncio.get_running_loop().create_future()
        key = command[1]
        assert isinstance(key, bytes)
        self._send(PendingCommand(key, lambda link: link.ask(*command), answer))
        return answer

    def _call_function(
        self, name: str, keys: list[bytes], arguments: list[calls.Argument], read: Callable[[RedisAnswer, int], T]
    ) -> "asyncio.Future[T]":
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._send(PendingCommand(keys[0], lambda link: link.call_function(name, keys, arguments), answer, read))
        return answer

    def _send(self, question: PendingCommand) -> None:
        """Send a command to the node of its key."""
        self._send_to(self._nodes.find_node(question.key), question, REDIRECTS_MAX)

    def _send_to(self, node: Node | None, question: PendingCommand, redirects_left: int, asking: bool = False) -> None:
        link = None if node is None else node.link
        if node is None or link is None:
            question.answer.set_exception(
                HubUnavailableError((self.why or "no node has it") if node is None else node.why)
            )
            return
        if asking:
            # A node answers requests for keys that it is about to receive only after ASKING.
            link.ask("ASKING").add_done_callback(asyncio.Future.exception)
        question.ask(link).add_done_callback(
            partial(self._on_answer, node, link, question, redirects_left - 1, monotonic())
        )

    def _on_answer(
        self,
        node: Node,
        link: Link,
        question: PendingCommand,
        redirects_left: int,
        sent: float,
        raw: "asyncio.Future[RedisAnswer]",
    ) -> None:
        answer, failure = question.answer, raw.exception()
        if answer.done():
            return  # Nobody waits for it any more.
        if failure is None:
            self._resolve(link, question, sent, raw.result())
            return
        if isinstance(failure, AskError) and redirects_left:
            try:
                target = self._nodes.follow_redirect(node, failure)
            except HubUnavailableError as error:
                answer.set_exception(error)
                return
            if target is not None:
                self._send_to(target, question, redirects_left, asking=not isinstance(failure, MovedError))
                return
        if isinstance(failure, ResponseError) and question.read is not None:
            # The node is reachable but cannot do this: it is a read-only replica, or its memory is full.
            self.errors += 1
            self._nodes.refresh_soon()
            failure = HubUnavailableError(format_error(failure))
            self._rare_log.error(
                "the hub refuses a report", str(failure), hub=self.name, key=format_excerpt(question.key)
            )
        answer.set_exception(failure)

    def _resolve(self, link: Link, question: PendingCommand, sent: float, raw: RedisAnswer) -> None:
        """Resolve a command with its answer, which this link has brought."""
        if question.read is None:
            self.last_answer_at = monotonic()
            question.answer.set_result(raw)
            return
        try:
            result, clock = question.read(raw, link.number), calls.parse_clock(raw)
        except ValueError as error:
            # All further answers are unusable too: the node mixes up answers, or is not Redis.
            link.lose(str(error))
            question.answer.set_exception(HubUnavailableError(str(error)))
            return
        self.last_answer_at = monotonic()
        if link.number == self._sampled_link:
            self._record_sample(link, sent, clock)
        question.answer.set_result(result)


def _node_status(node: Node) -> JsonObject:
    status: JsonObject = {
        "node": node.at,
        "state": "away" if node.link is None else "up",
        "breaker": node.breaker.state,
    }
    return status if node.link is not None else status | {"why": node.why}
