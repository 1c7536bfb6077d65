"""Customers through the hub: real edges, a real Redis, and `edgeproxy directory push`."""

import asyncio
import hashlib
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from edgeproxy.collector.directory import hub_push
from edgeproxy.config.edge.load import load_customers
from edgeproxy.edge.directory.cache import FILE
from edgeproxy.hub.redis import Link
from edgeproxy.wire import directory_signatures
from edgeproxy.wire.directory_signatures import Signer
from edgeproxy.wire.directory_versions import LOG, TIME, format_time, format_version, parse_line, parts_key
from loadtest.testbed.customers import TIERS, UNLIMITED, key_line, key_of
from loadtest.testbed.edge import Edge, StartEdge, total
from loadtest.testbed.redis import SERVER, Redis
from loadtest.testbed.waiting import turned, until
from tests.support.directory import told

pytestmark = pytest.mark.skipif(SERVER is None, reason="there is no redis-server on this machine")


class Pusher:
    """The owner of the customers' file."""

    def __init__(self, folder: Path, hub: str) -> None:
        self.file = folder / "people.yaml"
        self.hub = hub

    def writes(self, customers: dict[str, Any], keys: list[dict[str, object]] | None = None, **tiers: Any) -> None:
        """Write these customers to the file, each with a key unless `keys` is given; `tiers` are added to the
        usual ones.
        """
        said = {name: plan if isinstance(plan, dict) else {"tier": plan} for name, plan in customers.items()}
        listed = [key_line(name) for name in said] if keys is None else keys
        whole = {"hub": self.hub, "tiers": TIERS | tiers, "customers": said, "keys": listed}
        self.file.write_text(json.dumps(whole))

    @property
    def command(self) -> list[str]:
        return [sys.executable, "-m", "edgeproxy", "directory", "push", "-c", str(self.file), "--force"]

    def pushes(self, *given: Any, signer: Signer | None = None, back: bool = False, **tiers: Any) -> None:
        """Write these customers and push the file."""
        self.writes(*given, **tiers)
        hub_push.run_push(load_customers(self.file, {}), hub_push.PushOptions(force=True, signer=signer, back=back))


@pytest.fixture
def pusher(tmp_path: Path, redis: Redis) -> Pusher:
    return Pusher(tmp_path, redis.url)


def asks(edge: Edge, customer: str) -> int:
    return edge.ask(fields={"Authorization": f"Bearer {key_of(customer)}"}).status


def each(edge: Edge, customer: str, status: int, what: str) -> None:
    """Wait until all workers answer with this status."""
    until(lambda: {asks(edge, customer) for _ in range(8)} == {status}, what)


def known(edge: Edge) -> dict[str, Any]:
    """Return the directory part of `/status`."""
    found: dict[str, Any] = edge.status()["directory"]
    return found


def found(edge: Edge) -> float:
    """Return how often a worker asked for a key that its supervisor knows.

    A worker asks once for each key, until a push changes the key's customer.
    """
    return total(edge.metrics(), "edge_directory_lookups_total", result="known")


def settings(redis: Redis) -> dict[str, Any]:
    return {"hub": redis.url, "directory": {"from": "hub"}}


def test_from_a_push_to_its_end(start_edge: StartEdge, redis: Redis, pusher: Pusher) -> None:
    pusher.pushes({"dora": "basic", "eve": "free"})
    edge = start_edge(**settings(redis))
    assert [asks(edge, name) for name in ("dora", "eve", "fay", UNLIMITED)] == [200, 200, 401, 200]
    assert edge.limit("dora")["used"] == 1
    assert edge.usage() == {"dora": 1, "eve": 1, UNLIMITED: 1}

    pusher.pushes({"dora": "pro", "eve": "free", "fay": {"tier": "own", "limits": [{"rate": "90/min"}]}})
    each(edge, "fay", 200, "a new customer is served")
    assert (edge.limit("dora")["limit"], edge.limit("fay")["limit"]) == (600, 90)
    assert edge.limit("dora")["used"] == 1, "earlier usage counts"

    paused = {"tier": "free", "paused": {"why": "unpaid", "status": 402}}
    pusher.pushes({"dora": "pro", "eve": paused}, [key_line("eve")])
    each(edge, "dora", 401, "a key that was taken out is refused")
    each(edge, "eve", 402, "who is paused is told so")
    each(edge, "fay", 401, "who was removed is refused")
    assert edge.limits("dora")[0]["limit"] == 600
    told = known(edge)
    assert {name: told[name] for name in ("state", "version", "customers", "keys")} == {
        "state": "current",
        "version": 3,
        "customers": 2,
        "keys": 1,
    }
    samples = edge.metrics()
    assert total(samples, "edge_directory_customers") == 2
    assert total(samples, "edge_directory_version") == 3
    assert total(samples, "edge_directory_age_seconds") < 60
    assert total(samples, "edge_directory_lookups_total", result="known") >= 3
    assert total(samples, "edge_directory_lookups_total", result="unknown") >= 2


def test_directory_survives_the_hub_and_the_edges_processes(
    start_edge: StartEdge, redis: Redis, pusher: Pusher
) -> None:
    pusher.pushes({"dora": "basic"})
    edge = start_edge(**settings(redis))
    assert asks(edge, "dora") == 200
    redis.kill()
    until(lambda: known(edge)["state"] == "behind", "the edge reports a missing heartbeat")
    assert [asks(edge, name) for name in ("dora", "eve")] == [200, 401]
    edge.end()
    edge.start()
    told = known(edge)
    assert (told["state"], told["version"]) == ("behind", 1)
    assert told["age_s"] > 0
    assert told["why"]
    assert [asks(edge, name) for name in ("dora", "eve")] == [200, 401]
    redis.start()
    until(lambda: "it has lost the directory" in known(edge)["why"], "the hub is there, and empty")
    assert [asks(edge, name) for name in ("dora", "eve")] == [200, 401], "an unreachable hub removes no customer"
    pusher.pushes({"dora": "basic", "eve": "free"})
    each(edge, "eve", 200, "it goes on with the next push")
    assert known(edge)["state"] == "current"


def test_restarted_worker_and_second_supervisor_know_the_customers(
    start_edge: StartEdge, redis: Redis, pusher: Pusher
) -> None:
    pusher.pushes({"dora": "free"})
    edge = start_edge(**settings(redis))
    until(lambda: asks(edge, "dora") == 200 and found(edge) == 2, "both workers know her")
    worker = edge.worker_pids()[0]
    os.kill(worker, signal.SIGKILL)
    until(lambda: worker not in edge.worker_pids() and len(edge.worker_pids()) == 2, "there is another worker")
    until(lambda: asks(edge, "dora") == 200 and found(edge) == 3, "each worker knows dora")
    # The supervisor dies. Its workers keep serving the customers that they know, and no others, until a new supervisor.
    os.kill(edge.supervisor.pid, signal.SIGKILL)
    edge.supervisor.wait(10)
    assert {asks(edge, "dora") for _ in range(8)} == {200}
    until(lambda: asks(edge, "eve") == 503, "an unknown key answers 503")
    edge.begin()
    until(lambda: edge.ready() and asks(edge, "eve") == 401, "there is another supervisor")
    pusher.pushes({"eve": "free"})
    each(edge, "eve", 200, "it follows the hub")
    each(edge, "dora", 401, "in everything")


def test_two_supervisors_on_one_state_directory_follow_together(
    start_edge: StartEdge, redis: Redis, pusher: Pusher
) -> None:
    pusher.pushes({"dora": "own"})
    edge = start_edge(**settings(redis))
    before = edge.supervisor
    edge.begin()
    until(lambda: edge.output.count('"edge serving"') == 2, "both serve")
    pusher.pushes({"eve": "own"})
    each(edge, "eve", 200, "the workers of both know the new one")
    each(edge, "dora", 401, "and not the one before")
    assert before.wait_after(signal.SIGTERM, 20.0) == 0
    each(edge, "eve", 200, "the one that is left has read it too")


def test_the_files_count_where_both_know_a_name(start_edge: StartEdge, redis: Redis, pusher: Pusher) -> None:
    pusher.pushes({UNLIMITED: "basic", "dora": "basic", "gil": "gold"}, gold={})
    edge = start_edge(**settings(redis))
    answer = edge.ask(fields={"Authorization": f"Bearer {key_of(UNLIMITED)}"})
    assert answer.status == 200
    assert "ratelimit" not in answer, "the file says that nothing holds them"
    told = known(edge)
    assert (told["in_files"], told["unknown_tiers"]) == (1, {"gold": 1})
    assert "what the files say counts" in edge.output
    # A tier that is not known here: refused, and told; served once it is there.
    refused = edge.ask(fields={"Authorization": f"Bearer {key_of('gil')}"})
    assert (refused.status, refused["retry-after"]) == (503, "30")
    assert total(edge.metrics(), "edge_directory_unserved") == 1
    assert total(edge.metrics(), "edge_auth_failures_total", reason="unserved") == 1
    assert ask_limits(edge, "gil") == (404, "there is no tier gold here, which customer gil of the directory needs")
    edge.reload(tiers=TIERS | {"gold": {}})
    each(edge, "gil", 200, "the tier has come")
    assert known(edge)["unknown_tiers"] == {}
    assert edge.limits("gil") == []
    # A reload takes the directory away, and brings it back.
    del edge.settings["directory"]
    assert edge.reload().status == 200
    each(edge, "gil", 401, "nobody knows them now")
    assert edge.status()["directory"] is None
    assert edge.reload(directory={"from": "hub", "ttl": "1s"}).status == 200
    each(edge, "gil", 200, "and now they are known again")


def ask_limits(edge: Edge, customer: str) -> tuple[int, str]:
    from loadtest.testbed.http_client import ask

    answer = ask(edge.admin, f"/limits/{customer}")
    return answer.status, answer.json()["detail"]


def test_a_push_that_is_killed_is_seen_whole_or_not_at_all(
    start_edge: StartEdge, redis: Redis, pusher: Pusher, seed: int
) -> None:
    """After SIGKILL at any moment, hub and edge disk hold the version before or the one after."""
    chance = random.Random(seed)
    many = {f"c{n}": "free" for n in range(2000)}
    pusher.pushes(many)
    edge = start_edge(**settings(redis))
    before, killed = "free", 0
    for turn in range(3):
        pushed = ("basic", "pro")[turn % 2]
        pusher.writes(dict.fromkeys(many, pushed))
        calls = scripts(redis)
        process = subprocess.Popen(pusher.command, stdout=subprocess.DEVNULL)
        # The process spends most time on the file. The short part at the hub is the interesting one.
        until(
            lambda process=process, calls=calls: process.poll() is not None or scripts(redis) > calls,
            "the push is under way",
        )
        time.sleep(chance.uniform(0, 0.01))
        process.kill()
        killed += process.wait() != 0
        (there,) = set(asyncio.run(hub_tiers(redis)).values())
        assert there in (before, pushed)
        (here,) = tiers(edge)  # It may be some versions behind, and has one of them.
        assert here in ("free", "basic", "pro")
        before = there
    assert killed
    pusher.pushes(dict.fromkeys(many, "own"))
    until(lambda: tiers(edge) == ("own",), "the last one counts")
    assert asks(edge, "c7") == 200


def scripts(redis: Redis) -> int:
    """Return how many directory parts and versions the hub received."""

    async def asked() -> Any:
        link = await Link.open(redis.url)
        try:
            return await link.ask("INFO", "commandstats")
        finally:
            await link.close()

    found = [line for line in asyncio.run(asked()).splitlines() if line.startswith(b"cmdstat_rpush:")]
    return int(found[0].partition(b"calls=")[2].partition(b",")[0]) if found else 0


async def hub_tiers(redis: Redis) -> dict[str, str]:
    """Return the tier of each customer in the hub."""
    link = await Link.open(redis.url)
    try:
        return await told(link.ask)
    finally:
        await link.close()


def tiers(edge: Edge) -> tuple[str, ...]:
    """Return the customers' tiers on an edge's disk."""
    with closing(sqlite3.connect(Path(edge.settings["state"]) / FILE, timeout=10)) as db:
        return tuple(sorted(tier for (tier,) in db.execute("SELECT DISTINCT CAST(tier AS TEXT) FROM customers")))


def test_flood_of_unknown_keys_locks_out_no_customer(start_edge: StartEdge, redis: Redis, pusher: Pusher) -> None:
    pusher.pushes({"dora": "free", "eve": "free"})
    edge = start_edge(**settings(redis))
    each(edge, "dora", 200, "both workers know her")

    async def flood() -> Counter[tuple[str, int]]:
        met: Counter[tuple[str, int]] = Counter()
        is_over = False

        async def sends(what: str, keys: Iterator[str]) -> None:
            reader, writer = await asyncio.open_connection("127.0.0.1", edge.port)
            while not is_over:
                line = f"GET / HTTP/1.1\r\nHost: e\r\nX-API-Key: {next(keys)}\r\n\r\n"
                writer.write(line.encode())
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length:")[2].split()[0])
                await reader.readexactly(length)
                met[what, int(head[9:12])] += 1
            writer.close()

        def guesses(number: int) -> Iterator[str]:
            count = 0
            while True:
                count += 1
                yield hashlib.sha256(b"%d %d" % (number, count)).hexdigest()

        def hers() -> Iterator[str]:
            while True:
                yield key_of("dora")

        async with asyncio.TaskGroup() as group:
            for number in range(40):
                group.create_task(sends("guess", guesses(number)))
            group.create_task(sends("dora", hers()))
            await turned(lambda: met["guess", 401] > 100, "the flood is under way")
            comes_in = partial(until, lambda: asks(edge, "eve") == 200, "whom no worker has met yet comes in as well")
            await asyncio.to_thread(comes_in)
            told = await asyncio.to_thread(known, edge)
            assert told["state"] == "current"
            await turned(lambda: met["dora", 200] > 50 and met["guess", 401] > 500, "dora is served amid guessed keys")
            is_over = True
        return met

    met = asyncio.run(flood())
    print(met)
    assert {status for what, status in met if what == "dora"} == {200}
    assert {status for what, status in met if what == "guess"} <= {401, 503}
    each(edge, "eve", 200, "afterwards all is well")


@pytest.fixture
def signer(tmp_path: Path) -> Signer:
    directory_signatures.create_key_file(tmp_path / "directory.key")
    return Signer.load(tmp_path / "directory.key")


def at_hub(redis: Redis, *commands: tuple[Any, ...]) -> list[Any]:
    """Send commands to the hub with write access, and return its answers."""

    async def asked() -> list[Any]:
        link = await Link.open(redis.url, deadline=30.0)
        try:
            return [await link.ask(*command) for command in commands]
        finally:
            await link.close()

    return asyncio.run(asked())


def test_hub_writer_can_neither_create_nor_restore_keys(
    start_edge: StartEdge, redis: Redis, pusher: Pusher, signer: Signer, tmp_path: Path
) -> None:
    pusher.pushes({"dora": "own"}, signer=signer)
    edge = start_edge(hub=redis.url, directory={"from": "hub", "trust": [signer.public_key]})
    assert [asks(edge, name) for name in ("dora", "eve")] == [200, 401]
    first, time_signed = at_hub(redis, ("LINDEX", LOG, -1), ("LINDEX", TIME, -1))
    (part,) = at_hub(redis, ("LINDEX", parts_key(parse_line(first).version.token), 0))

    def refused(what: str) -> None:
        until(lambda: what in (known(edge)["refused"] or ""), f"it names what it refuses: {what}")
        assert [asks(edge, name) for name in ("dora", "eve")] == [200, 401], "known customers are served"

    # A forged version with a key of eve's, in the old format, signed by another key and appended to the real log.
    forged = part.replace(b"dora", b"eve").replace(key_hash("dora"), key_hash("eve"))
    directory_signatures.create_key_file(tmp_path / "forger.key")
    version = parse_line(first).version._replace(number=2, token="forged", before=parse_line(first).hash)
    version = version._replace(size=len(forged), sha256=hashlib.sha256(forged).hexdigest())
    at_hub(redis, ("RPUSH", parts_key("forged"), forged))
    for line, what in (
        (format_version(version._replace(form=1)), "version 2 is not signed"),
        (
            format_version(version, Signer.load(tmp_path / "forger.key")),
            "version 2 has no signature of a key that is trusted",
        ),
    ):
        at_hub(redis, ("RPUSH", LOG, line))
        refused(what)
        at_hub(redis, ("RPOP", LOG))
    until(lambda: known(edge)["refused"] is None, "the repaired version is no longer refused")
    assert "a version of the directory was refused" in edge.output
    assert total(edge.metrics(), "edge_directory_refused_total") >= 2

    # Rolled back: dora's key is taken out, and then all that was in the hub before is written there again.
    pusher.pushes({"dora": "own", "eve": "own"}, [], signer=signer)
    each(edge, "dora", 401, "it is revoked")
    at_hub(redis, ("DEL", LOG, TIME), ("RPUSH", LOG, first), ("RPUSH", TIME, time_signed))
    until(
        lambda: "version 1 is older than version 2" in (known(edge)["refused"] or ""), "the refusal names both versions"
    )
    assert asks(edge, "dora") == 401
    # A push back that the key's owner signed is accepted.
    pusher.pushes({"dora": "own"}, signer=signer, back=True)
    each(edge, "dora", 200, "it was meant")
    assert (known(edge)["refused"], known(edge)["signed"]) == (None, True)


def test_a_log_of_before_a_push_back_brings_no_key_back(
    start_edge: StartEdge, redis: Redis, pusher: Pusher, signer: Signer
) -> None:
    """`--back` restarts the numbers, so the versions of an earlier copied log have higher numbers."""
    log: list[bytes] = []
    while not log or parse_line(log[0]).version.number < 3:
        pusher.pushes({"dora": "own", f"c{len(log)}": "own"}, signer=signer)
        (log,) = at_hub(redis, ("LRANGE", LOG, 0, -1))
    (time_signed,) = at_hub(redis, ("LINDEX", TIME, -1))
    edge = start_edge(hub=redis.url, directory={"from": "hub", "trust": [signer.public_key]})
    assert asks(edge, "dora") == 200
    at_hub(redis, ("DEL", LOG, TIME))
    pusher.pushes({"eve": "own"}, signer=signer, back=True)
    each(edge, "dora", 401, "she is revoked by a log that begins anew")
    assert known(edge)["version"] == 1

    at_hub(redis, ("DEL", LOG, TIME), ("RPUSH", LOG, *log), ("RPUSH", TIME, time_signed))
    before = "was signed before version 1, which this edge has"
    until(lambda: before in (known(edge)["refused"] or ""), "the refusal names the version")
    edge.end()
    edge.start()
    until(lambda: before in (known(edge)["refused"] or ""), "an edge that is started again knows that too")
    assert [asks(edge, name) for name in ("dora", "eve")] == [401, 200]
    pusher.pushes({"fay": "own"}, signer=signer)
    each(edge, "fay", 200, "the next push counts, whatever is in the hub before it")


def test_forged_log_does_not_disconnect_an_edge_from_the_hub(
    start_edge: StartEdge, redis: Redis, pusher: Pusher, signer: Signer
) -> None:
    customers = {"dora": "basic", "eve": "own", "fay": "own"}
    pusher.pushes(customers, signer=signer)
    edge = start_edge(hub=redis.url, directory={"from": "hub", "trust": [signer.public_key]})
    pusher.pushes(customers | {"fay": "free"}, signer=signer)
    until(lambda: known(edge)["version"] == 2, "the edge has read the version")
    log, times = at_hub(redis, ("LRANGE", LOG, 0, -1), ("LRANGE", TIME, 0, -1))
    assert len(log) > 1
    unsigned = format_version(parse_line(log[-1]).version._replace(token="x", number=4))
    successor = parse_line(log[-1]).version._replace(token="next", number=5)
    signed = format_version(successor, signer)
    long = b"x" * (70 << 20)
    attacks = {
        "version 4 is not signed": (LOG, [unsigned] * 70_000),
        "version 5 is not a child of version 5": (LOG, [signed] * 70_000),
        "a line of the log has 1048576 bytes": (LOG, [*[long[: 1 << 20]] * 300, signed]),
        "the newest line of the log has 1048576 bytes": (LOG, [long[: 1 << 20]] * 300),
        "LINDEX about the directory cost the connection": (LOG, [long]),
        "the signed time of the log has 1048576 bytes": (TIME, [long[: 1 << 20]]),
    }
    for what, (key, lines) in attacks.items():
        at_hub(redis, *(("RPUSH", key, *lines[first : first + 100]) for first in range(0, len(lines), 100)))
        until(lambda what=what: what in (known(edge)["refused"] or known(edge).get("why", "")), what)
        assert (asks(edge, "dora"), edge.limit("dora")["limit"]) == (200, 60), "known customers are served"
        at_hub(redis, ("DEL", LOG, TIME), ("RPUSH", LOG, *log), ("RPUSH", TIME, *times))
        until(lambda: known(edge)["state"] == "current", "the edge follows the directory again")
    assert total(edge.metrics(), "edge_hub_up") == 1
    assert total(edge.metrics(), "edge_hub_errors_total") == 0
    assert edge.output.count('"the hub is reached"') == 1
    assert '"the hub is away"' not in edge.output


def key_hash(customer: str) -> bytes:
    return hashlib.sha256(key_of(customer).encode()).hexdigest().encode()


def test_edge_without_state_serves_no_customer_of_an_old_log(
    start_edge: StartEdge, redis: Redis, pusher: Pusher, signer: Signer
) -> None:
    """An attacker with write access to the hub restores a log of two days ago, with a key revoked since. `max_age` is
    absent.
    """
    pusher.pushes({"dora": "own"}, signer=signer)
    (line,) = at_hub(redis, ("LINDEX", LOG, -1))
    long_ago = time.time() - 2 * 86_400
    old = parse_line(format_version(parse_line(line).version._replace(at=long_ago), signer))
    with_time = ("RPUSH", TIME, format_time(old, long_ago, signer))
    for then in (with_time, ("DEL", TIME)):
        at_hub(redis, ("DEL", LOG, TIME), ("RPUSH", LOG, old.raw), then)
        edge = start_edge(hub=redis.url, directory={"from": "hub", "trust": signer.public_key})
        assert [asks(edge, name) for name in ("dora", UNLIMITED)] == [503, 200], then
    pusher.pushes({"dora": "own"}, signer=signer)
    each(edge, "dora", 200, "it was signed now")


def test_directory_without_a_recent_signature_serves_no_customer(
    start_edge: StartEdge, redis: Redis, pusher: Pusher, signer: Signer
) -> None:
    pusher.pushes({"dora": "own"}, signer=signer)
    edge = start_edge(hub=redis.url, directory={"from": "hub", "trust": [signer.public_key], "max_age": "1min"})
    each(edge, "dora", 200, "both workers know her")
    (line,) = at_hub(redis, ("LINDEX", LOG, -1))
    newest = parse_line(line)
    edge.end()
    # As if an hour had passed: the signatures on the disk and in the hub are from then.
    long_ago = time.time() - 3600
    at_hub(redis, ("DEL", TIME), ("RPUSH", TIME, format_time(newest, long_ago, signer)))
    with closing(sqlite3.connect(Path(edge.settings["state"]) / FILE)) as db:
        db.execute("UPDATE version SET pushed_at = ?, signed_at = ?", (long_ago, long_ago))
        db.commit()
    edge.start()
    answer = edge.ask(fields={"Authorization": f"Bearer {key_of('dora')}"})
    assert answer.status == 503
    assert "too old" in answer.json()["detail"]
    assert asks(edge, UNLIMITED) == 200, "customers of the files are served"
    assert known(edge)["signed_age_s"] > 3000
    pusher.pushes({"dora": "own"}, signer=signer)  # Which changes nothing, and signs the time.
    each(edge, "dora", 200, "it is believed again")
