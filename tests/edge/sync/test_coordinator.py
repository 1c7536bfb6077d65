"""A supervisor that reports its workers' limits to a real hub: the path of claims, and one leader per host."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from time import monotonic

import pytest
from redis import Redis as Client

from edgeproxy.config.hub_settings import Hub
from edgeproxy.edge import messages
from edgeproxy.edge.channel import LENGTH
from edgeproxy.edge.counters import layout as at
from edgeproxy.edge.counters.store import Store
from edgeproxy.edge.limits.rate_terms import RateTerms
from edgeproxy.edge.messages import ClaimsUnused, FromLeader, HubAnswered, LimitRow, LimitsUsed, RateUse, TotalUse
from edgeproxy.edge.sync.coordinator import Coordinator
from edgeproxy.edge.sync.leader import SOCKET_NAME
from edgeproxy.edge.sync.shared import SharedRates
from loadtest.testbed.redis import SERVER, Redis
from loadtest.testbed.waiting import turned
from tests.support.hub_state import parse_state
from tests.support.tables import WIDTH

pytestmark = pytest.mark.skipif(SERVER is None, reason="there is no redis-server on this machine")

LIMIT = 100


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    server = Redis(tmp_path_factory.mktemp("redis"))
    yield server
    server.kill()


@pytest.fixture(autouse=True)
def _nothing_left(redis: Redis) -> None:
    with Client(port=redis.port) as client:
        client.flushall()


class Host:
    """Supervisors on one state directory. The test acts as their worker."""

    def __init__(self, state: Path, redis: Redis) -> None:
        self._state, self._url = state, redis.url
        self._client = Client(port=redis.port)
        self.first = self.prepared()
        self.worker = Store.join(state)
        now = self.first.offset + asyncio.get_running_loop().time()
        self.table = self.first.customers
        self.row, self.generation, _ = self.table.find(self.table.make_key(b"acme"), WIDTH, now)

    def prepared(self) -> Store:
        return Store.prepare(self._state, workers=1, customers=10, addresses=10, hub=True)

    @asynccontextmanager
    async def coordinator(self, store: Store) -> AsyncIterator[tuple[Coordinator, list[FromLeader]]]:
        """Run a coordinator. Yield it with the messages to its workers."""
        told: list[FromLeader] = []
        coordinator = Coordinator(store, Hub(url=self._url), told.append)
        coordinator.begin()
        try:
            yield coordinator, told
        finally:
            await coordinator.end()

    def word(self, word: int, column: int = 0) -> int:
        return self.table.words[self.row + self.table.layout.head(column) + word]

    def wants(self, many: int) -> LimitsUsed:
        """Let the worker wait for more claims. Return its message."""
        self.table.words[self.row + self.table.layout.head(0) + at.WANT] = self.word(at.GIVEN) + many
        terms = RateTerms(LIMIT, 60.0, self.table.layout.cells)
        use = RateUse.from_terms(
            "customers", self.table.file.generation, self.row, self.generation, terms, refused=False
        )
        return LimitsUsed([use], [])

    def waits_no_more(self) -> None:
        self.table.words[self.row + self.table.layout.head(0) + at.WANT] = 0

    def at_hub(self, field: str) -> int:
        """Return a field of this host at the hub: g for granted claims, p for spent ones."""
        keys = self._client.keys(f"rl:*:host:{self.first.control.instance}")
        return int(parse_state(self._client.get(keys[0])).get(field, 0)) if keys else 0

    def close(self) -> None:
        for store in (self.worker, self.first):
            store.close()
        self._client.close()


def test_metrics_and_report_show_a_hub_that_was_never_reached(tmp_path: Path, redis: Redis) -> None:
    async def play() -> None:
        with closing(Host(tmp_path / "state", redis)) as host:
            secured = Redis(tmp_path, "--requirepass", "s3cret")
            coordinator = Coordinator(
                host.first, Hub(url=f"redis://:wrong@127.0.0.1:{secured.port}/0"), lambda said: None
            )
            created = monotonic()

            def told(name: str) -> int:
                (value,) = [words[0] for of, _, words in coordinator.series() if of == name]
                return value

            try:
                coordinator.begin()
                await turned(lambda: told("edge_hub_errors_total") >= 2, "each attempt counts as an error")
                assert (told("edge_hub_up"), told("edge_hub_nodes_away")) == (0, 1)
                await turned(lambda: told("edge_limit_sync_age_seconds") >= 1, "the age of the last answer grows")
                asked = monotonic()
                assert coordinator.report()["behind_s"] >= asked - created - 0.001
                await coordinator.follow(Hub(url=f"redis://:s3cret@127.0.0.1:{secured.port}/0"))
                await turned(lambda: told("edge_hub_up") == 1, "the hub is reached")
                assert monotonic() - coordinator.report()["behind_s"] > asked, "the age counts from the last answer"
                heard, errors = coordinator._hub.last_answer_at, told("edge_hub_errors_total")
                assert errors >= 2
                await coordinator.follow(Hub(url=f"redis://:wrong@127.0.0.1:{secured.port}/0"))
                await turned(
                    lambda: told("edge_hub_errors_total") > errors, "the hub was tried with the other password"
                )
                now = monotonic()
                assert coordinator.report()["behind_s"] >= now - heard - 0.001, (
                    "the age counts from the last answer of the former link"
                )
            finally:
                await coordinator.end()
                secured.kill()

    asyncio.run(play())


NOBODY = "redis://127.0.0.1:1/0"
"""A hub that refuses connections."""


def test_a_new_supervisor_knows_the_number_of_hosts_without_the_hub(tmp_path: Path, redis: Redis) -> None:
    async def play() -> None:
        with closing(Host(tmp_path / "one", redis)) as one, closing(Host(tmp_path / "two", redis)) as two:
            words = one.table.words
            async with two.coordinator(two.first), one.coordinator(one.first):
                await turned(lambda: words[at.HOSTS] == 2, "both hosts count two hosts")
            # A new supervisor without a reachable hub, first on these tables and then on others.
            for workers in (1, 2):
                store = Store.prepare(tmp_path / "one", workers=workers, customers=10, addresses=10, hub=True)
                coordinator = Coordinator(store, Hub(url=NOBODY, on_loss="deny"), lambda said: None)
                assert one.first.identity.held
                one.first.identity.release()
                coordinator.begin()
                words = store.customers.words
                await turned(lambda words=words: words[at.HOSTS] == 2 | at.AWAY, "the tables have two hosts")
                assert words[at.ON_LOSS] == at.DENY
                assert coordinator.report()["hosts"] == 2
                await coordinator.follow(Hub(url=NOBODY, on_loss="share"))
                assert (words[at.HOSTS], words[at.ON_LOSS]) == (2 | at.AWAY, at.SHARE)
                await coordinator.end()
                store.close()
                assert one.first.identity.try_acquire()

    asyncio.run(play())


@pytest.mark.parametrize("said", [0, 3])
def test_until_the_hub_was_tried_the_former_supervisors_state_applies(tmp_path: Path, redis: Redis, said: int) -> None:
    async def play() -> None:
        with closing(Host(tmp_path, redis)) as host:
            words = host.table.words
            words[at.HOSTS] = said
            host.first.control.write_hosts(3)
            hangs = asyncio.Event()

            async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                hangs.set()
                await reader.read()
                writer.close()

            async with await asyncio.start_server(silent, "127.0.0.1", 0) as server:
                port = server.sockets[0].getsockname()[1]
                coordinator = Coordinator(host.first, Hub(url=f"redis://127.0.0.1:{port}/0"), lambda said: None)
                coordinator.begin()
                await turned(lambda: hangs.is_set() and coordinator._tables, "the hub is being tried")
                before, is_tried = words[at.HOSTS], coordinator._hub.tried
                assert before == (3 if said else 3 | at.AWAY) or is_tried
                await turned(lambda: coordinator._hub.tried, "the hub did not answer in time")
                assert words[at.HOSTS] == 3 | at.AWAY
                await coordinator.end()

    asyncio.run(play())


def test_claims_that_arrive_too_late_are_returned(tmp_path: Path, redis: Redis) -> None:
    async def play() -> None:
        with closing(Host(tmp_path, redis)) as host:
            async with host.coordinator(host.first) as (coordinator, told):
                coordinator.record_uses(host.wants(3))
                host.waits_no_more()
                coordinator.record_uses(host.wants(3))
                await turned(lambda: host.word(at.GIVEN) >= 3, "claims are given")
                host.waits_no_more()
                await turned(
                    lambda: any(isinstance(each, ClaimsUnused) for each in told), "the worker is asked to return them"
                )
                (said,) = {tuple(each.rows) for each in told if isinstance(each, ClaimsUnused)}
                assert said == (LimitRow("customers", host.table.file.generation, host.row, host.generation),)
                given = host.word(at.GIVEN)
                host.table.words[host.row + host.table.layout.head(0) + at.USED] = given
                await turned(lambda: host.at_hub("p") == host.at_hub("g") == given, "the hub has them again")
                told.clear()
                rates = coordinator._tables["customers", 1].rates
                await turned(lambda: not rates.has_claims, "no claims are left")
                assert not [each for each in told if isinstance(each, ClaimsUnused)]

    asyncio.run(play())


def test_claims_of_a_dead_worker_are_returned(tmp_path: Path, redis: Redis) -> None:
    async def play() -> None:
        with closing(Host(tmp_path, redis)) as host:
            async with host.coordinator(host.first) as (coordinator, _):
                coordinator.record_uses(host.wants(3))
                await turned(lambda: host.word(at.GIVEN) == 3, "claims are given")
                assert host.word(at.USED) == 0
                coordinator.record_uses(host.wants(2))
                host.worker.close()
                await turned(
                    lambda: host.word(at.USED) == host.word(at.GIVEN) == host.word(at.WANT), "the claims are returned"
                )
                await turned(lambda: host.at_hub("p") == host.at_hub("g") > 0, "the hub has them again")

    asyncio.run(play())


def test_second_supervisor_takes_over_the_lead(tmp_path: Path, redis: Redis) -> None:
    async def play() -> None:
        with closing(Host(tmp_path, redis)) as host, closing(host.prepared()) as second:
            async with host.coordinator(second) as (newer, its):
                # The second supervisor leads while it is alone.
                await turned(lambda: second.identity.held, "the second holds the lock")
                async with host.coordinator(host.first) as (older, mine):
                    older.record_uses(host.wants(3))
                    await turned(lambda: host.word(at.GIVEN) == 3, "the leader hears of the waiting request")
                    await turned(lambda: HubAnswered() in mine, "the workers of the follower are told")
                    assert HubAnswered() in its
                    assert not older._tables, "the follower has no tables"
                    await newer.end()
                    host.wants(2)
                    second.identity.release()
                    await turned(
                        lambda: host.word(at.GIVEN) == 5, "the new leader knows the used rows, and the hub answers it"
                    )
                    assert host.at_hub("g") == 5, "earlier grants were not given again"

    asyncio.run(play())


def test_an_unknown_row_or_table_in_a_message_is_ignored(tmp_path: Path, redis: Redis) -> None:
    async def play() -> None:
        with closing(Host(tmp_path, redis)) as host:
            async with host.coordinator(host.first) as (coordinator, _):
                await turned(lambda: coordinator._hub.is_up, "the hub is reached")
                for place in (("customers", 1, 1 << 40, 2), ("nobody", 1, host.row, 2)):
                    rate = RateUse.from_terms(*place, terms=RateTerms(LIMIT, 60.0), refused=False)
                    coordinator.record_uses(LimitsUsed([rate], [TotalUse(*place, limit=1)]))
                    await turned(lambda: not coordinator._pending_uses, "the message is handled")
                coordinator.record_uses(host.wants(3))
                await turned(lambda: host.word(at.GIVEN) == 3, "claims are given")

    asyncio.run(play())


@pytest.mark.parametrize("fault", ["build_reports", "hold_next_rows"])
def test_a_fault_with_one_row_does_not_stop_the_coordinator(
    tmp_path: Path, redis: Redis, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def play() -> None:
        with closing(Host(tmp_path, redis)) as host:
            async with host.coordinator(host.first) as (coordinator, _):
                await turned(lambda: coordinator._hub.is_up and coordinator._tables, "the hub is reached")
                faults: list[object] = []

                def faulty(*given: object) -> None:
                    faults.append(given)
                    raise ValueError("a row that nobody thought of")

                with monkeypatch.context() as patched:
                    patched.setattr(SharedRates, fault, faulty)
                    coordinator.record_uses(host.wants(3))
                    if fault == "hold_next_rows":
                        await coordinator.follow(Hub(url=NOBODY))
                        assert host.table.words[at.HOSTS] & at.AWAY, "the change of the hub applies at once"
                    await turned(lambda: faults, "the fault has occurred")
                if fault == "hold_next_rows":
                    await coordinator.follow(Hub(url=redis.url))
                await turned(lambda: coordinator._hub.is_up, "the hub is reached")
                coordinator.record_uses(host.wants(3))
                await turned(lambda: host.word(at.GIVEN) == 3, "claims are given")

    asyncio.run(play())


def test_a_clock_that_was_ahead_does_not_delay_claims(tmp_path: Path, redis: Redis) -> None:
    async def play() -> None:
        with closing(Host(tmp_path, redis)) as host:
            right = host.first.offset
            host.first.control.write_offset(right + 3600)
            async with host.coordinator(host.first) as (coordinator, _):
                coordinator.record_uses(host.wants(3))
                await turned(lambda: host.word(at.GIVEN) == 3, "claims are given")
                await turned(lambda: abs(host.first.offset - right) < 60, "the hub's clock is followed")
                coordinator.record_uses(host.wants(2))
                await turned(lambda: host.word(at.GIVEN) == 5, "claims are given")

    asyncio.run(play())


def test_reports_use_the_clock_of_the_hub(tmp_path: Path, redis: Redis) -> None:
    async def play() -> None:
        with closing(Host(tmp_path, redis)) as host:
            right = host.first.offset
            host.first.control.write_offset(right + 3600)
            async with host.coordinator(host.first) as (coordinator, _):
                coordinator.record_uses(host.wants(3))
                await turned(lambda: host.at_hub("g") >= 3, "claims are granted")
                now = asyncio.get_running_loop().time() + right
            with Client(port=redis.port) as client:
                (key,) = client.keys("rl:*:total")
                cells = [int(name) for name in parse_state(client.get(key)) if name.isdigit()]
                width = host.table.words[host.row + at.ROW_WIDTH] / 1e6
            assert cells
            assert max(cells) < (now + 60) / width, "the hub has cells of a future hour"

    asyncio.run(play())


def test_a_removed_table_does_not_stop_the_coordinator(tmp_path: Path, redis: Redis) -> None:
    async def play() -> None:
        with closing(Host(tmp_path, redis)) as host:
            async with host.coordinator(host.first) as (coordinator, _):
                coordinator.record_uses(host.wants(3))
                await turned(lambda: host.word(at.GIVEN) == 3, "claims are given")
                host.worker.close()
                later = Store.prepare(tmp_path, workers=2, customers=10, addresses=10, hub=True)
                now = host.first.offset + asyncio.get_running_loop().time()
                row, generation, _ = later.customers.find(later.customers.make_key(b"other"), WIDTH, now)

                def is_removed() -> bool:
                    host.first.maintain(host.first.offset + asyncio.get_running_loop().time())
                    return host.table.file.is_closed

                await turned(is_removed, "the old file is unused")
                coordinator._handle_hub_change()
                terms = RateTerms(LIMIT, 60.0, 28)
                rate = RateUse.from_terms(
                    "customers", later.customers.file.generation, row, generation, terms, refused=False
                )
                head = row + later.customers.layout.head(0)
                later.customers.words[head + at.WANT] = 2
                coordinator.record_uses(LimitsUsed([rate], []))
                await turned(lambda: later.customers.words[head + at.GIVEN] == 2, "claims are given in the new one")
                later.close()

    asyncio.run(play())


def test_a_leader_ignores_an_unknown_message_of_a_follower(tmp_path: Path, redis: Redis) -> None:
    async def play() -> None:
        with closing(Host(tmp_path, redis)) as host:
            async with host.coordinator(host.first) as (_, told):
                await turned((tmp_path / SOCKET_NAME).exists, "the supervisor leads")
                reader, writer = await asyncio.open_unix_connection(tmp_path / SOCKET_NAME)
                uses = messages.FOLLOWER.pack(host.wants(3)).data
                writer.write(LENGTH.pack(14) + b'{"type":"new"}' + uses)
                await turned(lambda: host.word(at.GIVEN) == 3, "claims are given")
                await turned(lambda: HubAnswered() in told, "workers are told")
                assert await reader.readexactly(LENGTH.size + 16) == messages.LEADER.pack(HubAnswered()).data
                writer.write(LENGTH.pack(2) + b"{]")
                while await reader.read(1 << 16):
                    pass  # Read to the end: the leader closes the connection.
                writer.close()

    asyncio.run(play())


def test_a_follower_ignores_an_unknown_message_of_its_leader(tmp_path: Path, redis: Redis) -> None:
    async def play() -> None:
        with closing(Host(tmp_path, redis)) as host, closing(host.prepared()) as before:
            assert before.identity.try_acquire()

            def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                writer.write(LENGTH.pack(14) + b'{"type":"new"}' + LENGTH.pack(16) + b'{"type":"heard"}')

            async with (
                await asyncio.start_unix_server(answer, tmp_path / SOCKET_NAME),
                host.coordinator(host.first) as (_, told),
            ):
                await turned(lambda: told == [HubAnswered()], "its workers get the known message")

    asyncio.run(play())
