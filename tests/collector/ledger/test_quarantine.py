"""The quarantine keeps unreadable batches byte for byte, and a replay counts each of them once."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import zstandard
from typer.testing import CliRunner, Result

from edgeproxy import cli
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.ledger import quarantine, quarantine_capacity, queries
from edgeproxy.collector.ledger.batch_writer import BatchWriter
from edgeproxy.collector.ledger.chain import Shipper
from edgeproxy.collector.ledger.edges import list_edges
from edgeproxy.collector.ledger.known_names import KnownNames
from edgeproxy.collector.ledger.quarantine import ReplayRejectedError, ReplayResult
from edgeproxy.collector.ledger.received_batch import ReceivedBatch, decode_batch, parse_headers
from edgeproxy.collector.ledger.retention import Retention
from edgeproxy.collector.ledger.verification import verify_ledger
from edgeproxy.collector.metrics import Metrics
from edgeproxy.config.collector import settings
from edgeproxy.wire.batch import FIRST, NUMBER_MAX, Batch, Gap, compute_digest, format_batch, format_headers
from loadtest.testbed.batch_chains import NOON, Chain
from loadtest.testbed.collector import ADMIN, EDGE, OWN, READ, SERVICE, Collector
from loadtest.testbed.http_client import Answer, ask


class Kept:
    """A database that receives batches through the collector's batch writer, without a collector process."""

    def __init__(self, database: Database) -> None:
        self.database = database
        metrics = Metrics()
        self._ingest = BatchWriter(database, KnownNames((), (), metrics), metrics)

    async def settle(self, *arrivals: ReceivedBatch) -> list[str]:
        """Store the batches, and return the verdict on each."""
        running = asyncio.ensure_future(self._ingest.run())  # noqa: TID251 - awaited below
        outcomes = await asyncio.gather(*[self._ingest.settle_batch(arrival, Shipper("edges")) for arrival in arrivals])
        self._ingest.end()
        await running
        self._ingest = BatchWriter(self.database, KnownNames((), (), Metrics()), Metrics())
        return [outcome.verdict.value for outcome in outcomes]

    async def replay(self, chain: Chain, seq: int, given: bytes | None = None) -> ReplayResult:
        return await quarantine.replay_batch(self.database, chain.edge, seq, given)

    async def refused(self, chain: Chain, seq: int, given: bytes | None = None) -> tuple[str, str]:
        with pytest.raises(ReplayRejectedError) as caught:
            await self.replay(chain, seq, given)
        return caught.value.code.name, str(caught.value)

    async def total(self, **query: str) -> int:
        async with self.database.reading() as connection:
            question = queries.parse_query({"from": "1970-01-01", **query}, 0)
            found: int = (await queries.fetch_usage(connection, question))["total"]
        return found

    async def edges(self) -> list[str]:
        async with self.database.reading() as connection:
            return [edge["edge"] for edge in await list_edges(connection, 0.0)]

    async def shown(self, chain: Chain, seq: int) -> dict[str, object] | None:
        async with self.database.reading() as connection:
            return await quarantine.find_batch(connection, chain.edge, seq)


@pytest.fixture
def keeping(database: str) -> Callable[[Callable[[Kept], Awaitable[None]]], None]:
    """Run a test on an empty database, and verify its ledger against its batches at the end."""

    async def kept(work: Callable[[Kept], Awaitable[None]]) -> None:
        opened = await Database.connect(database)
        try:
            await work(Kept(opened))
            await verify_ledger(opened)
        finally:
            await opened.close()

    return lambda work: asyncio.run(kept(work))


Keeping = Callable[[Callable[[Kept], Awaitable[None]]], None]


def whole(batch: Batch) -> ReceivedBatch:
    """Return a batch as the collector receives it."""
    sent = format_batch(batch)
    headers = parse_headers(format_headers(batch, sent))
    assert not isinstance(headers, str)
    return decode_batch(headers, sent, "identity")


def broken(batch: Batch, sent: bytes = b"torn", *, hashed: bytes | None = None) -> ReceivedBatch:
    """Return the torn body that arrives instead of a batch.

    The edge hashed the torn body, or the bytes `hashed` if given.
    """
    headers = parse_headers(
        {"Edge-Id": batch.edge, "Edge-Seq": str(batch.seq), "Edge-Hash": compute_digest(hashed or sent)}
    )
    assert not isinstance(headers, str)
    return decode_batch(headers, sent, "identity")


def torn_chain() -> tuple[Chain, Batch, list[ReceivedBatch]]:
    """Return a chain of three batches, its intact second batch, and the three as received: the second is torn."""
    chain = Chain()
    first, second = chain.next(), chain.next()
    chain.prev = compute_digest(b"torn")
    return chain, second, [whole(first), broken(second), whole(chain.next())]


def test_token_cannot_fill_the_disk_with_unreadable_batches(keeping: Keeping, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quarantine_capacity, "BATCHES_MAX", 3)

    def torn(count: int) -> tuple[Chain, list[ReceivedBatch]]:
        chain = Chain()
        return chain, [broken(chain.next()) for _ in range(count)]

    async def work(kept: Kept) -> None:
        _, some = torn(2)
        assert await kept.settle(*some) == ["quarantined"] * 2
        chain, more = torn(3)
        assert await kept.settle(*more) == ["quarantined", "full", "expected"]
        before = await kept.edges()
        assert await kept.settle(torn(1)[1][0], torn(2)[1][1]) == ["full", "expected"]
        assert await kept.edges() == before, "of an edge of which nothing is kept nothing is written"
        assert await kept.settle(more[1]) == ["full"], "whatever it is, its edge keeps it"
        monkeypatch.setattr(quarantine_capacity, "BATCHES_MAX", 100)
        monkeypatch.setattr(quarantine_capacity, "BYTES_MAX", 4 * len(b"torn"))
        assert await kept.settle(more[1], more[2]) == ["quarantined", "full"]
        async with kept.database.reading() as connection:
            nothing = await quarantine.build_empty_body(connection, chain.edge, 1)
        await kept.replay(chain, 1, nothing)
        assert await kept.settle(more[2]) == ["quarantined"], "there is room again"

    keeping(work)


def test_repeated_replay_counts_a_corrected_body_once_in_its_minute(keeping: Keeping) -> None:
    async def work(kept: Kept) -> None:
        chain, second, arrivals = torn_chain()
        assert await kept.settle(*arrivals) == ["counted", "quarantined", "counted"]
        later = whole(Chain(chain.edge, chain.region).next()._replace(seq=4, since=NOON + 600, until=NOON + 605,
                                                                      prev=arrivals[-1].hash))  # fmt: skip
        assert await kept.settle(later) == ["counted"]
        await verify_ledger(kept.database)
        counts = await asyncio.gather(*(kept.replay(chain, 2, format_batch(second)) for _ in range(4)))
        assert sorted(done.again for done in counts) == [False, True, True, True]
        assert {(done.rows, done.total, done.minute) for done in counts} == {(2, 7, NOON)}
        assert (await kept.replay(chain, 2)).again
        minute = {"from": queries.format_time(NOON), "to": queries.format_time(NOON + 60)}
        assert (await kept.total(**minute), await kept.total()) == (21, 28)
        shown = await kept.shown(chain, 2)
        assert shown is not None
        assert (shown["state"], shown["hash"], shown["begins"]) == ("counted", compute_digest(b"torn"), "torn")
        assert str(shown["why"]).startswith("replayed on 20")
        assert (await kept.refused(chain, 2, b"{}"))[0] == "batch-counted-otherwise"
        # The edge still has the torn body: sending it again changes nothing.
        assert await kept.settle(arrivals[1]) == ["again"]

    keeping(work)


@pytest.mark.parametrize("at_once", [False, True])
def test_whole_batch_with_a_wrong_previous_hash_stays_quarantined(keeping: Keeping, at_once: bool) -> None:
    async def work(kept: Kept) -> None:
        chain = Chain()
        first, second = chain.next(), chain.next()._replace(prev="a" * 64)
        arrivals = [whole(first), broken(second, hashed=format_batch(second)), whole(second)]
        if at_once:
            verdicts = await kept.settle(*arrivals)
        else:
            verdicts = [*await kept.settle(*arrivals[:2]), *await kept.settle(arrivals[2])]
        assert verdicts == ["counted", "quarantined", "unreadable"]
        assert (await kept.refused(chain, 2, format_batch(second)))[0] == "batch-invalid"
        assert await kept.total() == 7

    keeping(work)


@pytest.mark.parametrize("seq", [2, 3])
def test_replay_succeeds_beside_batches_that_retention_deleted(keeping: Keeping, seq: int) -> None:
    async def work(kept: Kept) -> None:
        chain = Chain()
        made = [chain.next() for _ in range(seq)]
        chain.prev = compute_digest(b"torn")
        after = [whole(chain.next()) for _ in range(2)]
        assert await kept.settle(*map(whole, made[:-1]), broken(made[-1]), *after)
        held = settings.Retention.model_construct(minutes=None, hours=None, batches=2 * 86400)
        retention = Retention(kept.database, held, unused=0.0)
        later = time.time() + 3 * 86400
        await retention.begin_round(later)
        while await retention.drop_next(later):
            pass
        assert retention.broken == {}
        await verify_ledger(kept.database)
        shown = await kept.shown(chain, seq)
        assert shown is not None
        wrong = format_batch(made[-1]._replace(prev="a" * 64))
        if shown["prev"] is not None:
            assert (await kept.refused(chain, seq, wrong))[0] == "batch-invalid"
        assert (await kept.replay(chain, seq, format_batch(made[-1]))).total == 7
        assert await kept.total() == chain.total

    keeping(work)


def test_replay_uses_the_stored_body_once_it_is_readable(keeping: Keeping) -> None:
    async def work(kept: Kept) -> None:
        chain = Chain()
        first = whole(chain.next())
        assert await kept.settle(first._replace(batch=None, why="is of another version")) == ["quarantined"]
        assert await kept.total() == 0
        assert (await kept.replay(chain, 1)).total == 7
        assert await kept.settle(whole(chain.next()), first) == ["counted", "again"]
        assert await kept.total() == 14

    keeping(work)


def test_replay_rejects_another_batch_and_changes_nothing(keeping: Keeping) -> None:
    async def work(kept: Kept) -> None:
        chain, second, arrivals = torn_chain()
        await kept.settle(*arrivals)
        gap = whole(chain.next(gap=Gap(4, 4, "lost")))
        assert await kept.settle(gap) == ["gap"]
        owned = Batch(chain.edge, chain.region, 2, NOON, NOON, FIRST, gap=Gap(2, 2, "lost"))
        much = second._replace(rows=(("acme", "requests", "v1", NUMBER_MAX), ("bolt", "requests", "v1", NUMBER_MAX)))
        for seq, given, code, why in (
            (9, None, "batch-not-found", "there is no batch 9"),
            (4, None, "batch-is-gap", "owns up to a gap"),
            (1, b"{}", "batch-counted-otherwise", "counted already, with another body"),
            (2, None, "batch-invalid", "the body is not JSON"),
            (2, b"{}", "batch-invalid", "the body has no edge"),
            (2, format_batch(second._replace(seq=3)), "batch-invalid", "has another edge or seq"),
            (2, format_batch(second._replace(edge="another")), "batch-invalid", "has another edge or seq"),
            (
                2,
                format_batch(second._replace(prev="a" * 64)),
                "batch-invalid",
                f"the batch before it has the hash {arrivals[0].hash}",
            ),
            (2, format_batch(owned), "batch-invalid", "owns up to a gap"),
            (2, format_batch(much), "batch-invalid", "more than the ledger can hold"),
        ):
            refusal = await kept.refused(chain, seq, given)
            assert refusal[0] == code
            assert why in refusal[1]
        assert await kept.total() == 14
        assert not (await kept.replay(chain, 2, format_batch(second))).again

    keeping(work)


def test_replay_of_an_empty_body_counts_nothing(keeping: Keeping) -> None:
    async def work(kept: Kept) -> None:
        chain, _, arrivals = torn_chain()
        await kept.settle(*arrivals)
        async with kept.database.reading() as connection:
            given = await quarantine.build_empty_body(connection, chain.edge, 2)
        assert (await kept.replay(chain, 2, given)).rows == 0
        async with kept.database.reading() as connection:
            assert (await quarantine.list_batches(connection))["count"] == 0
            assert await quarantine.build_empty_body(connection, chain.edge, 2) is None
        assert await kept.total() == 14

    keeping(work)


# ---- over HTTP and by commands, while a collector runs


def ship_torn(collector: Collector) -> tuple[Chain, Batch]:
    """Send the batches of `torn_chain` to a collector."""
    chain, second, arrivals = torn_chain()
    fields = {"Edge-Id": chain.edge, "Edge-Seq": "2", "Edge-Hash": arrivals[1].hash}
    assert collector.post(chain.made[0]).status == 200
    assert collector.post(b"torn", fields=fields).status == 422
    assert collector.post(chain.made[-1]).status == 200
    return chain, second


def replay(collector: Collector, chain: Chain, sent: bytes, seq: str = "2", **fields: str) -> Answer:
    said = {"Authorization": f"Bearer {ADMIN}", **fields}
    path = f"/v1/quarantine/{chain.edge}/{seq}/replay"
    return ask(collector.port, path, method="POST", fields=said, body=sent)


def test_admin_lists_and_replays_quarantined_batches_by_api(collector: Collector) -> None:
    chain, second = ship_torn(collector)
    before = collector.metric("collector_quarantined_batches")
    place = f"/v1/quarantine/{chain.edge}/2"
    (listed,) = collector.get("/v1/quarantine", token=ADMIN, edge=chain.edge).json()["batches"]
    assert (listed["seq"], listed["size"], listed["coding"]) == (2, 4, "identity")
    assert collector.get("/v1/quarantine", token=ADMIN).json()["count"] == before
    shown = collector.get(place, token=ADMIN).json()
    assert shown["why"].startswith("is not JSON")
    assert (shown["prev"], shown["begins"], shown["sha256"]) == (second.prev, "torn", compute_digest(b"torn"))
    assert collector.get(f"{place}/body", token=ADMIN).body == b"torn"
    assert replay(collector, chain, b"").json()["detail"].startswith("the body is not JSON")
    small = zstandard.ZstdCompressor().compress(format_batch(second))
    for again in (False, True):
        answer = replay(collector, chain, small, **{"Content-Encoding": "zstd"})
        told = {"rows": 2, "total": 7, "minute": "2026-09-21T12:00:00Z", "again": again}
        assert (answer.status, answer.json()) == (200, told)
    assert collector.counted(chain) == 21
    assert collector.edges()[chain.edge]["quarantined"] == []
    assert collector.metric("collector_quarantined_batches") == before - 1
    assert collector.post(chain.next()).status == 200
    assert replay(collector, chain, b"{}").status == 409
    assert replay(collector, chain, b"", seq="9").status == 404
    assert replay(collector, chain, b"x", seq="x").status == 400
    assert replay(collector, chain, b"x", **{"Content-Encoding": "br"}).status == 422
    assert collector.get("/v1/quarantine/nobody/1", token=ADMIN).status == 404
    assert collector.get("/v1/quarantine", token=ADMIN, edge="\0").json() == {"count": 0, "batches": []}
    for path in ("%00/1", "%00/1/body"):
        assert collector.get(f"/v1/quarantine/{path}", token=ADMIN).status == 404
    nobody = "/v1/quarantine/%00/1/replay"
    said = {"Authorization": f"Bearer {ADMIN}"}
    assert ask(collector.port, nobody, method="POST", fields=said, body=b"x").status == 404
    assert collector.get(f"/v1/quarantine/{chain.edge}/1/body", token=ADMIN).status == 404


def test_quarantine_is_for_admins(collector: Collector) -> None:
    for path in ("/v1/quarantine", "/v1/quarantine/x/1", "/v1/quarantine/x/1/body"):
        assert collector.get(path, token=None).status == 401
        for token in (EDGE, READ, SERVICE, OWN):
            assert collector.get(path, token=token).status == 403
    assert replay(collector, Chain(), b"", Authorization=f"Bearer {READ}").status == 403


def run(collector: Collector, *command: str) -> Result:
    return CliRunner().invoke(cli.app, ["quarantine", command[0], "-c", str(collector.file), *command[1:]])


def test_quarantine_by_commands_while_the_collector_runs(collector: Collector, tmp_path: Path) -> None:
    chain, second = ship_torn(collector)
    assert f"{chain.edge} 2  20" in run(collector, "ls").stdout
    file = tmp_path / "body"
    shown = run(collector, "show", chain.edge, "2", "--body", str(file))
    assert f"prev      {second.prev}" in shown.stdout
    assert file.read_bytes() == b"torn"
    file.write_bytes(format_batch(second._replace(prev=FIRST)))
    refused = run(collector, "replay", chain.edge, "2", "--body", str(file))
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "the batch before it has the hash" in refused.stderr
    file.write_bytes(format_batch(second))
    for was in ("is counted", "was counted before"):
        done = run(collector, "replay", chain.edge, "2", "--body", str(file))
        text = f"batch 2 of {chain.edge} {was}: 2 rows with a total of 7 in the minute 2026-09-21T12:00:00Z\n"
        assert (done.exit_code, done.stdout) == (0, text)
    # The replay may have created series: the running collector knows them too.
    assert collector.post(chain.next()).status == 200
    assert collector.counted(chain) == chain.total
    assert run(collector, "show", chain.edge, "1").exit_code == 1
    assert run(collector, "replay", chain.edge, "2", "--nothing").exit_code == 0
    assert run(collector, "replay", chain.edge, "2", "--nothing", "--body", str(file)).exit_code == 2
    assert run(collector, "replay", chain.edge, "2", "--body", str(tmp_path / "none")).exit_code == 2
    for nobody in (("nobody", "1"), ("no\0body", "1"), ("no\udcff", "1"), (chain.edge, str(NUMBER_MAX + 1))):
        refused = run(collector, "replay", *nobody, "--nothing")
        assert (refused.exit_code, refused.stdout) == (1, "")
        assert "there is no batch" in refused.stderr
    for command in ("show", "replay"):
        assert "there is no batch" in run(collector, command, "nobody", "1").stderr
