"""Run the request rows on an edge over HTTP/1.1 or HTTP/2, and reduce answers and records so that tests can compare
them."""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from h2.exceptions import StreamClosedError

from loadtest.testbed.sealing import batches
from loadtest.testbed.waiting import until
from tests.contract.case import Asked, Seen
from tests.contract.over_http2 import Http2Request, translate
from tests.contract.stage import FENCE, Stage, check_own
from tests.contract.upstream import check_fields
from tests.support.http2_wire import Http2Wire
from tests.support.wire import Cut, Message

METERS = {
    "requests": {"count": "requests"},
    "in": {"count": "bytes_in"},
    "out": {"count": "bytes_out"},
    "refused": {"count": "refusals"},
}

NOBODY = {"collector": "http://127.0.0.1:9", "token": "e" * 40, "every": "200ms"}
"""A collector that does not answer, so that the usage stays in the spool."""

PROTOCOL_ERROR = 1

OF_CONNECTIONS = frozenset(("connection", "transfer-encoding", "keep-alive"))
OF_MOMENTS = frozenset(("x-request-id", "traceparent", "date", "ratelimit"))
"""Fields whose values differ in each request."""
MOMENTS = frozenset(("time", "request_id", "seconds", "upstream_seconds", "endpoint"))
"""Members of a log line whose values differ in each request."""

VIA_HTTP1, VIA_HTTP2 = "1.1 edgeproxy", "2.0 edgeproxy"

Comparable = tuple[Any, ...]


@dataclass
class Outcome:
    """The answers and the upstream's requests of a row, or its failure. Values that depend on the time or on the
    protocol of a connection are removed."""

    answers: list[Comparable] = field(default_factory=list)
    requests: list[Comparable] = field(default_factory=list)
    failure: BaseException | None = None


@dataclass
class Books:
    """The records of an edge about all rows."""

    log: list[dict[str, Any]]
    usage: list[list[Any]]
    metrics: dict[Any, float]
    spool: Counter[tuple[Any, ...]]


class Side:
    """One of the two edges, and the outcomes of its rows."""

    def __init__(self, folder: Path, *, over_http2: bool) -> None:
        self._folder, self._over_http2 = folder, over_http2
        self._log = folder / "access.log"
        self.stage = Stage(folder, http2=True, access_log=str(self._log), meters=METERS, usage=NOBODY)
        self.outcomes: dict[int, Outcome] = {}
        self._requests = 0

    def ask(self, rows: Iterable[Asked]) -> None:
        """Run each row and store its outcome."""
        ask = ask_over_http2 if self._over_http2 else Stage.ask
        for row in rows:
            outcome = self.outcomes[id(row)] = Outcome()
            try:
                answers = self.stage.run(ask(self.stage, row))
                outcome.answers = [compare_answer(answer) for answer in answers]
                outcome.requests = [compare_request(request) for request in self.stage.requests]
            except (AssertionError, OSError, TimeoutError) as failure:
                outcome.failure = failure
            self._requests += len(row.answers)

    def close(self) -> Books:
        """End the edge and return its records."""
        edge = self.stage.edge
        until(lambda: len(self._read_log()) >= self._requests, "the log has a line for each request")
        usage = edge._told("/usage").json()["rows"]
        until(lambda: edge.metrics() == edge.metrics(), "the metrics stay unchanged")
        metrics = edge.metrics()
        self.stage.closes()
        spool: Counter[tuple[Any, ...]] = Counter()
        for batch in batches(self._folder / "state" / "spool"):
            for customer, meter, route, value, *more in batch.rows:
                spool[customer, meter, route, repr(more)] += value
        return Books(self._read_log(), usage, metrics, spool)

    def _read_log(self) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self._log.read_bytes().splitlines()] if self._log.exists() else []
        return [line for line in lines if line.get("path") != FENCE]


async def ask_over_http2(stage: Stage, case: Asked) -> list[Message]:
    """Run a row as `Stage.ask` does, with each request on a stream of its own, after the answer to the last one."""
    stage.recorder.forgets()
    client = await Http2Wire(await stage.client(case.source), checks=False).begins()
    answers: list[Message] = []
    seen = list(case.seen)
    expected: list[Seen] = []
    try:
        for request, status in zip(translate(case), case.answers, strict=True):
            is_forwarded = status == 200
            through = seen.pop(0) if is_forwarded else None
            number = await send(client, request)
            if request.is_malformed():
                assert await client.reset_of(number) == PROTOCOL_ERROR
                continue
            answers.append(await client.answer_of(number))
            assert answers[-1].status == status
            check_own(answers[-1], last=False)
            if through is not None:
                expected.append(adapt(through))
        if len(answers) == len(case.answers):
            check_fields(answers[-1], case.has, ())
        if len(answers) < len(case.answers) or not case.ends:
            # The connection serves further requests.
            assert (await client.asks(FENCE)).status == 200
    finally:
        client.closes()
    await stage.settles()
    # The edge has begun to forward a request with malformed trailers before it sees them.
    stage.check_requests(tuple(expected), cut=case.cut or any(request.trailers for request in translate(case)))
    return answers


async def send(client: Http2Wire, request: Http2Request) -> int:
    """Send a request without checks and return its stream id."""
    protocol = client.protocol
    number: int = protocol.get_next_available_stream_id()
    protocol.send_headers(number, request.block, end_stream=request.body is None)
    await client.flushes()
    if request.body is not None:
        try:
            await client.sends_data(number, request.body, ended=not request.trailers)
            if request.trailers:
                protocol.send_headers(number, list(request.trailers), end_stream=True)
                await client.flushes()
        except (StreamClosedError, Cut):
            pass  # The edge has already answered or refused the request.
    return number


def adapt(seen: Seen) -> Seen:
    """Return the expected request at the upstream if the client's request came over HTTP/2."""
    has = tuple(line.removesuffix(VIA_HTTP1) + VIA_HTTP2 if line.startswith("Via:") else line for line in seen.has)
    names = [line.partition(":") for line in seen.trailers]
    return replace(seen, has=has, trailers=tuple(f"{name.lower()}:{value}" for name, _, value in names))


def compare_answer(answer: Message) -> Comparable:
    """Return the comparable parts of an answer."""
    return answer.status, _compare_fields(answer), answer.body if answer.status < 400 else b"", _lower(answer.trailers)


def compare_request(request: Message) -> Comparable:
    """Return the comparable parts of a request at the upstream."""
    return request.first, _compare_fields(request), request.body, _lower(request.trailers)


def _compare_fields(message: Message) -> list[tuple[str, str]]:
    fields = _lower(message.fields)
    own = dict(fields).get("content-type") == "application/problem+json"
    dropped = OF_CONNECTIONS | OF_MOMENTS | ({"content-length"} if own else set())
    kept = [(name, "" if name in dropped else value) for name, value in fields if name not in OF_CONNECTIONS]
    kept = [(name, value.removesuffix("edgeproxy")[:-4] if name == "via" else value) for name, value in kept]
    # HTTP/2 may split a cookie into several fields, HTTP/1.1 has one (RFC 9113 section 8.2.3).
    crumbs = "; ".join(value for name, value in kept if name == "cookie")
    return sorted([*(each for each in kept if each[0] != "cookie"), ("cookie", crumbs)])


def _lower(fields: list[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(name.lower(), value) for name, value in fields]
