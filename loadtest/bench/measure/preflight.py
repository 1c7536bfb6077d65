"""The check of a peer's job before its measurement, so that no peer is cheap because it omits something."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from loadtest.bench.ask import Answer, Asker, asking, bearer
from loadtest.bench.peers.peer import Running
from loadtest.bench.people import ACME, FEW, REGION, TINY
from loadtest.bench.scenario import SMALL_ANSWER
from loadtest.bench.upstream.echo import HELD, Echo

_SPOOFED = (
    ("X-Request-Id", "spoofed"),
    ("X-Edge-Region", "spoofed"),
    ("X-Customer-Id", "spoofed"),
    ("X-Customer-Tier", "spoofed"),
    ("X-Forwarded-For", "192.0.2.66"),
    ("X-Forwarded-Proto", "spoofed"),
    ("X-Forwarded-Host", "spoofed"),
    ("X-Forwarded-Port", "spoofed"),
    ("X-Real-IP", "192.0.2.66"),
    ("X-Edge-Signature", "spoofed"),
    ("Forwarded", "for=192.0.2.66"),
    ("X_Customer_Id", "spoofed"),
)
_STAMPS = {
    "x-edge-region": REGION,
    "x-customer-id": ACME.name,
    "x-customer-tier": ACME.tier,
    "x-forwarded-for": "127.0.0.1",
    "x-forwarded-proto": "http",
    "x-forwarded-host": "api.example.com",
}
_TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
_SPAN = "00f067aa0ba902b7"
_PATIENCE = 5.0


class Wrong(Exception):
    """The peer's deviation from its job."""


def check_relay(running: Running) -> None:
    """Check, for every peer and before the measured upstream, that the answer passes whole. Raises Wrong."""
    with asking(running.port) as asker:
        answer = asker.get("/v1/small", [bearer(ACME.key)])
        if (answer.status, answer.body) != (200, SMALL_ANSWER):
            raise Wrong(f"relayed {answer.status} with {len(answer.body)} bytes instead of the upstream's answer")
        if asker.get("/elsewhere", [bearer(ACME.key)]).status != 404:
            raise Wrong("a path without a route is not 404")


def check_job(running: Running, echo: Echo) -> None:
    """For the peers that do the job, before an upstream that echoes: stamps, identity, limits, counts. Raises Wrong."""
    with asking(running.port) as asker, _counting(running, echo):
        answer = asker.get("/v1/echo", [bearer(ACME.key), *_SPOOFED])
        _check_stamps(answer)
        _check_fields(answer)
        _check_trace(asker)
        _check_identity(asker)
        _check_limit(asker)
    _check_at_once(running, echo)


@contextmanager
def _counting(running: Running, echo: Echo) -> Iterator[None]:
    """The peer counts every request of ACME's that its upstream answered: all but the 60 of TINY's."""
    if running.counted is None:
        raise Wrong("it does not say what it counted")
    counted, heads = running.counted(), echo.heads
    yield
    grown, asked = running.counted() - counted, echo.heads - heads - TINY.limit
    if grown != asked:
        raise Wrong(f"it counted {grown} requests of {asked} that were answered")


def head_fields(head: bytes) -> dict[str, list[str]]:
    """The field lines of a request head, names in lower case."""
    fields: dict[str, list[str]] = {}
    for line in head.decode("latin-1").split("\r\n")[1:]:
        if line:
            name, _, value = line.partition(":")
            fields.setdefault(name.lower(), []).append(value.strip())
    return fields


def _check_stamps(answer: Answer) -> None:
    sent = head_fields(answer.body)
    for name, value in _STAMPS.items():
        if sent.get(name) != [value]:
            raise Wrong(f"the upstream got {name}: {sent.get(name)} instead of {value}")
    for name in ("x-request-id", "traceparent", "via"):
        if len(sent.get(name, [])) != 1:
            raise Wrong(f"the upstream got {name}: {sent.get(name)}")
    if b"spoofed" in answer.body or b"192.0.2.66" in answer.body:
        raise Wrong("a stamp that the client made up reached the upstream")
    if ACME.key.encode() in answer.body:
        raise Wrong("the key reached the upstream")
    if answer.values("x-request-id") != sent["x-request-id"]:
        raise Wrong("the client's X-Request-Id is not the upstream's")


def _check_fields(answer: Answer) -> None:
    for name in ("ratelimit", "ratelimit-policy"):
        (value,) = answer.values(name) or [""]
        if not value.startswith(f'"{ACME.tier}"'):
            raise Wrong(f"the answer's {name} is {value!r}")


def _check_trace(asker: Asker) -> None:
    sent = head_fields(asker.get("/v1/echo", [bearer(ACME.key), ("traceparent", f"00-{_TRACE}-{_SPAN}-01")]).body)
    (trace,) = sent["traceparent"]
    if _TRACE not in trace or _SPAN in trace:
        raise Wrong(f"the trace is not continued: {trace}")


def _check_identity(asker: Asker) -> None:
    for fields, expected in (([], 401), ([bearer("ek_nobody")], 401), ([("X-API-Key", ACME.key)], 200)):
        status = asker.get("/v1/echo", fields).status
        if status != expected:
            raise Wrong(f"{fields} is answered with {status} instead of {expected}")


def _check_limit(asker: Asker) -> None:
    answers = [asker.get("/v1/echo", [bearer(TINY.key)]) for _ in range(TINY.limit + 10)]
    statuses = [answer.status for answer in answers]
    if statuses != [200] * TINY.limit + [429] * 10:
        raise Wrong(f"{statuses.count(200)} passed of a limit of {TINY.limit}, {statuses.count(429)} were refused")
    if not answers[-1].values("retry-after"):
        raise Wrong("a 429 without Retry-After")


def _check_at_once(running: Running, echo: Echo) -> None:
    """As many as may be are under way; one more is refused, until one of them has ended, or its client has left."""
    with ExitStack() as stack:
        first, second, third = [stack.enter_context(asking(running.port)) for _ in range(3)]
        with asking(running.port) as leaving:
            heads = echo.heads
            for asker in (first, leaving):
                asker.ask(HELD, [bearer(FEW.key)])
            _wait(lambda: echo.heads == heads + FEW.at_once, "so many at once do not pass")
            refused = third.get("/v1/echo", [bearer(FEW.key)])
            if refused.status != 429 or not refused.values("retry-after"):
                raise Wrong(f"with {FEW.at_once} under way another one is answered with {refused.status}")
        _wait(lambda: third.get("/v1/echo", [bearer(FEW.key)]).status == 200, "a client that has left still counts")
        heads = echo.heads
        second.ask(HELD, [bearer(FEW.key)])
        _wait(lambda: echo.heads == heads + 1, "the place of a client that has left is not free")
        if third.get("/v1/echo", [bearer(FEW.key)]).status != 429:
            raise Wrong("the place of a client that has left is given to two")
        echo.go_on.set()
        if [asker.answer().status for asker in (first, second)] != [200, 200]:
            raise Wrong("what was held is not answered")
        _wait(lambda: third.get("/v1/echo", [bearer(FEW.key)]).status == 200, "what has ended still counts")


def _wait(condition: Callable[[], bool], otherwise: str) -> None:
    deadline = time.monotonic() + _PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise Wrong(otherwise)
        time.sleep(0.01)
