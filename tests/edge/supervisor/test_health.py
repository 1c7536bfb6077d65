"""The combined result of health probes, and the times of probes."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest
import uvloop

from edgeproxy.base.tasks import Tasks
from edgeproxy.config.tls import UpstreamTls
from edgeproxy.edge.supervisor.health import AddressHealth, Health, ProbeTarget, ProbeTerms, select_usable
from loadtest.testbed.waiting import turned, within
from tests.support.logs import capture_logs

OFTEN, SELDOM = ProbeTerms("/", 0.01, UpstreamTls()), ProbeTerms("/", 1000.0, UpstreamTls())
ONE = ProbeTarget("api", "http://a:80", "10.0.0.1", OFTEN)
TWO = ProbeTarget("api", "http://a:80", "10.0.0.2", OFTEN)


@pytest.mark.parametrize(
    ("probes", "states", "turns"),
    [
        ("+", "u", "*"),
        ("-", "d", "*"),
        ("++++", "uuuu", "*..."),
        ("+-", "uu", "*."),
        ("+--", "uud", "*.*"),
        ("+-+-+", "uuuuu", "*...."),
        ("-+", "dd", "*."),
        ("-++", "ddu", "*.*"),
        ("-+-+", "dddd", "*..."),
        ("+--++--", "uudduud", "*.*.*.*"),
        ("-----++", "ddddddu", "*.....*"),
    ],
)
def test_two_probes_in_a_row_turn_an_address_and_the_first_one_of_all(probes: str, states: str, turns: str) -> None:
    standing = AddressHealth()
    assert standing.up is None
    for probe, state, turn in zip(probes, states, turns, strict=True):
        assert standing.record_probe(None if probe == "+" else "status 500") == (turn == "*")
        assert standing.up == (state == "u")
        assert bool(standing.why) == (state == "d")


def test_why_is_the_newest_failure_of_an_address_that_is_down() -> None:
    standing = AddressHealth()
    assert standing.why == "not probed yet"
    standing.record_probe("status 500")
    standing.record_probe("no answer within 5 s")
    assert standing.why == "no answer within 5 s"
    standing.record_probe(None)
    assert standing.why == "no answer within 5 s"
    standing.record_probe(None)
    assert standing.why == ""


def standings(states: str) -> list[AddressHealth]:
    made = [AddressHealth() for _ in states]
    for standing, state in zip(made, states, strict=True):
        if state != "?":
            standing.record_probe(None if state == "u" else "status 500")
    return made


@pytest.mark.parametrize(
    ("states", "used"), [("??", "xx"), ("u?", "x."), ("d?", ".x"), ("dd", ".."), ("ud", "x."), ("", "")]
)
def test_an_address_not_probed_yet_is_used_where_none_is_known_to_be_up(states: str, used: str) -> None:
    assert select_usable(standings(states)) == [mark == "x" for mark in used]


class Service:
    """Answers probes as a test says: a reason, None, or an exception."""

    def __init__(self) -> None:
        self.says: dict[ProbeTarget, str | Exception | None] = {}
        self.asked: Counter[ProbeTarget] = Counter()

    async def __call__(self, target: ProbeTarget) -> str | None:
        await asyncio.sleep(0)
        self.asked[target] += 1
        answer = self.says.get(target)
        if isinstance(answer, Exception):
            raise answer
        return answer


def play(scene: Callable[[Health, Service, Tasks, list[int]], Awaitable[None]]) -> None:
    async def run() -> None:
        service, tasks, learned = Service(), Tasks(), []
        try:
            await within(20, scene(Health(service, lambda: learned.append(1)), service, tasks, learned))
        finally:
            await tasks.cancel()

    uvloop.run(run())


def test_an_address_is_probed_at_once_and_again_and_again() -> None:
    async def scene(health: Health, service: Service, tasks: Tasks, learned: list[int]) -> None:
        assert health.is_probed
        rare = TWO._replace(terms=SELDOM)
        health.follow([ONE, rare], tasks)
        assert not health.is_probed
        await turned(lambda: health.is_probed, "both are probed")
        assert (health[ONE].up, health[rare].up) == (True, True)
        assert len(learned) == 2
        await turned(lambda: service.asked[ONE] > 5, "the endpoint is probed again")
        assert service.asked[rare] == 1
        assert len(learned) == 2

    play(scene)


def test_health_change_is_logged_with_its_reason_and_reported() -> None:
    async def scene(health: Health, service: Service, tasks: Tasks, learned: list[int]) -> None:
        health.follow([ONE], tasks)
        await turned(lambda: health.is_probed, "the endpoint is probed")
        service.says[ONE] = "status 500"
        await turned(lambda: health[ONE].up is False, "the endpoint is down")
        service.says[ONE] = None
        await turned(lambda: health[ONE].up, "the endpoint is up")
        assert len(learned) == 3

    with capture_logs() as logs:
        play(scene)
    first, down, up = logs
    assert first["event"] == up["event"] == "upstream address is up"
    assert down == {
        "event": "upstream address is down",
        "log_level": "warning",
        "why": "status 500",
        "upstream": "api",
        "url": "http://a:80",
        "address": "10.0.0.1",
    }


def test_addresses_that_are_gone_are_probed_no_more_and_forgotten() -> None:
    async def scene(health: Health, service: Service, tasks: Tasks, learned: list[int]) -> None:
        health.follow([ONE, TWO], tasks)
        await turned(lambda: health.is_probed, "both are probed")
        health.follow([TWO], tasks)
        before = service.asked.copy()
        await turned(lambda: service.asked[TWO] > before[TWO] + 5, "the other one is probed on")
        assert service.asked[ONE] <= before[ONE] + 1
        assert (health[ONE].up, health[ONE].why) == (None, "not probed yet")
        health.follow([ONE, TWO], tasks)
        assert health[ONE].up is None
        assert health[TWO].up

    play(scene)


def test_a_probe_that_breaks_is_a_failed_one() -> None:
    async def scene(health: Health, service: Service, tasks: Tasks, learned: list[int]) -> None:
        service.says[ONE] = RuntimeError("unforeseen")
        health.follow([ONE], tasks)
        await turned(lambda: health[ONE].up is False, "the endpoint is down")
        assert health[ONE].why == "the probe failed: RuntimeError('unforeseen')"
        service.says[ONE] = None
        await turned(lambda: health[ONE].up, "the endpoint is still probed and up")

    play(scene)
