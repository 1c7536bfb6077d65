"""Names that are looked up again and again, by a look-up that the test answers and by the system's."""

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable

import pytest
import uvloop

from edgeproxy.base.tasks import Tasks
from edgeproxy.edge.supervisor import resolver
from edgeproxy.edge.supervisor.resolver import Resolver, SystemResolver, filter_reachable, has_route, sort_addresses
from loadtest.testbed.waiting import turned, within
from tests.support.logs import capture_logs


class Names:
    """A look-up whose answers a test sets: addresses, an error, or nothing at all."""

    def __init__(self, **answers: object) -> None:
        self.answers = answers
        self.asked: list[str] = []

    async def __call__(self, host: str) -> list[str]:
        self.asked.append(host)
        answer = self.answers[host]
        if isinstance(answer, Exception):
            raise answer
        if answer is None:
            await asyncio.Event().wait()
        assert isinstance(answer, list)
        return answer

    async def again(self) -> None:
        """Wait until the present answer has arrived: the second look-up from now begins after the first has ended."""
        expected = len(self.asked) + 2
        await turned(lambda: len(self.asked) >= expected, "the name is looked up twice more")


def play(
    names: Names, hosts: list[str], scene: Callable[[Resolver, list[int]], Awaitable[None]], every: float = 0.01
) -> None:
    """Play `scene` with a resolver of these hosts, and a list that grows by one whenever something is learned."""

    async def run() -> None:
        tasks, learned = Tasks(), []
        made = Resolver(hosts, lambda: learned.append(1), names, every=every)
        made.start(tasks)
        try:
            await within(20, scene(made, learned))
        finally:
            await tasks.cancel()

    uvloop.run(run())


def test_an_address_needs_no_look_up() -> None:
    async def scene(made: Resolver, learned: list[int]) -> None:
        assert made.is_looked_up
        assert made["10.0.0.1"].addresses == ("10.0.0.1",)
        assert made["::1"].addresses == ("::1",)

    names = Names()
    play(names, ["10.0.0.1", "::1"], scene)
    assert names.asked == []


def test_every_name_is_looked_up_at_once_and_each_once() -> None:
    async def scene(made: Resolver, learned: list[int]) -> None:
        assert not made.is_looked_up
        await turned(lambda: made.is_looked_up, "both were looked up")
        assert made["a"].addresses == ("10.0.0.1",)
        assert made["b"].addresses == ("10.0.0.2",)

    names = Names(a=["10.0.0.1"], b=["10.0.0.2"])
    play(names, ["a", "b", "a", "10.0.0.9"], scene, every=1000)
    assert sorted(names.asked) == ["a", "b"]


@pytest.mark.parametrize(
    "failure", [socket.gaierror(socket.EAI_NONAME, "Name or service not known"), UnicodeError("label too long")]
)
def test_failed_look_up_keeps_the_last_addresses(failure: Exception) -> None:
    names = Names(a=["10.0.0.1"])

    async def scene(made: Resolver, learned: list[int]) -> None:
        await turned(lambda: made.is_looked_up, "the name was looked up")
        names.answers["a"] = failure
        await turned(lambda: made["a"].failures >= 3, "the look-up failed three times")
        assert made["a"].addresses == ("10.0.0.1",)
        assert made["a"].why in ("Name or service not known", "label too long")
        assert len(learned) == 1
        names.answers["a"] = ["10.0.0.1"]
        await turned(lambda: not made["a"].why, "the look-up works again")
        assert len(learned) == 1

    with capture_logs() as logs:
        play(names, ["a"], scene)
    assert len(logs) == 1, "failures are said seldom"
    assert (logs[0]["about"], logs[0]["addresses_kept"]) == ("a", ["10.0.0.1"])


def test_unknown_name_counts_as_looked_up_and_is_retried_soon() -> None:
    names = Names(a=socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"))

    async def scene(made: Resolver, learned: list[int]) -> None:
        await turned(lambda: made.is_looked_up, "the name was looked up")
        assert made["a"].addresses == ()
        names.answers["a"] = ["10.0.0.1"]
        await turned(lambda: made["a"].addresses, "the address is known")

    play(names, ["a"], scene, every=1000)  # AGAIN is what counts while nothing is known


def test_a_look_up_without_end_counts_as_failed_and_holds_up_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolver, "LOOKUP_TIMEOUT", 0.05)

    async def scene(made: Resolver, learned: list[int]) -> None:
        await turned(lambda: made["b"].addresses, "the other one is known")
        await turned(lambda: made["a"].failures, "the look-up counts as failed")
        assert made["a"].why == "no answer within 0.05 s"

    play(Names(a=None, b=["10.0.0.1"]), ["a", "b"], scene)


def test_long_answer_of_a_name_server_is_cut_and_logged_once() -> None:
    def answer(network: int) -> list[str]:
        return [f"10.{network}.{number >> 8}.{number & 255}" for number in range(resolver.ADDRESSES_MAX + 1)]

    names = Names(a=answer(0))

    async def scene(made: Resolver, learned: list[int]) -> None:
        await turned(lambda: made["a"].addresses, "the name was looked up")
        assert made["a"].addresses == tuple(answer(0)[: resolver.ADDRESSES_MAX])
        looked_up = len(names.asked)
        await turned(lambda: len(names.asked) > looked_up + 2, "the name is looked up again")
        assert len(learned) == 1, "the same answer changes nothing"
        names.answers["a"] = answer(1)
        await turned(lambda: len(learned) == 2, "the address has changed")

    with capture_logs() as logs:
        play(names, ["a"], scene)
    cut = [log for log in logs if log["event"] == "upstream name has more addresses than are used"]
    assert [(log["addresses"], log["used"]) for log in cut] == [(resolver.ADDRESSES_MAX + 1, resolver.ADDRESSES_MAX)]
    assert max(len(str(log)) for log in logs) < 2000


# ---- the system's resolver


def test_the_system_knows_localhost() -> None:
    async def scene() -> None:
        assert "127.0.0.1" in await SystemResolver()("localhost")

    uvloop.run(scene())


def test_the_system_says_why_not(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    async def scene() -> None:
        with pytest.raises(UnicodeError):
            await SystemResolver()("a" * 64 + ".invalid")
        monkeypatch.setattr(socket, "getaddrinfo", unknown)
        with pytest.raises(socket.gaierror, match="not known"):
            await SystemResolver()("a")

    uvloop.run(scene())


def test_a_name_has_one_look_up_at_a_time_however_many_gave_up_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    began, answer = [], threading.Event()

    def slow(host: str, port: None, **_: object) -> list[tuple[object, ...]]:
        began.append(host)
        answer.wait(20)
        return [(socket.AF_INET, 0, 0, "", ("127.0.0.1", 0))] * 2

    async def scene() -> None:
        monkeypatch.setattr(socket, "getaddrinfo", slow)
        system = SystemResolver()
        for _ in range(3):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await system("a")
        assert began == ["a"]
        answer.set()
        assert await within(20, system("a")) == ("127.0.0.1",)

    uvloop.run(scene())


# ---- addresses


def test_unroutable_addresses_are_dropped_unless_all_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolver, "has_route", lambda address: ":" not in address)
    assert filter_reachable(["::2", "10.0.0.1", "::1"]) == ("10.0.0.1",)
    assert filter_reachable(["::2", "::1"]) == ("::2", "::1")


def test_has_route_is_true_only_for_reachable_addresses() -> None:
    assert has_route("127.0.0.1")
    assert not has_route("::ffff:ffff:ffff:ffff:ffff%nosuch")


def test_addresses_are_in_the_order_of_their_numbers() -> None:
    assert sort_addresses(["fe80::1%b", "10.0.0.10", "10.0.0.9", "fe80::1%a", "::1", "10.0.0.9"]) == (
        "10.0.0.9",
        "10.0.0.10",
        "::1",
        "fe80::1%a",
        "fe80::1%b",
    )
