"""Each event counts once, for any number of senders and repeats, and after kills of the collector."""

import asyncio
import random
import threading
import time
from collections import Counter
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
import zstandard

from edgeproxy.base.tasks import Tasks
from edgeproxy.collector.api.events import EventHandlers
from edgeproxy.collector.api.responses import ProblemError
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.events.event import UsageEvent
from edgeproxy.collector.events.event_writer import (
    DEAD_LETTERS_MAX,
    WAITING_EVENTS_MAX,
    DeadLetterRow,
    EventRequest,
    EventWriter,
    select_letters,
)
from edgeproxy.collector.ledger.known_names import KnownNames
from edgeproxy.collector.metrics import Metrics
from loadtest.testbed.collector import ADMIN, EDGE, OWN, READ, SERVICE, Collector, checked
from loadtest.testbed.http_client import Answer
from loadtest.testbed.waiting import turned, until
from tests.collector.accounts.test_audit import entries
from tests.support.collector_fixtures import StartCollector, only_sqlite

pytestmark = pytest.mark.both_databases

METERS = {"tokens": {"count": "events"}, "runs": {"count": "events"}, "requests": {"count": "requests"}}


@pytest.fixture
def collector(start_collector: StartCollector) -> Collector:
    return start_collector(meters=METERS)


def event(number: int, **also: Any) -> dict[str, Any]:
    said = {"id": f"e{number}", "source": "worker", "customer": "acme", "meter": "tokens", "value": number % 7}
    return {**said, "time": at(-60 * (number % 50)), **also}


BEGAN = time.time()


def at(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(BEGAN + seconds))


def send(collector: Collector, said: Any, token: str = SERVICE, **fields: str) -> Answer:
    return collector.send("POST", "/v1/events", said, token=token, **fields)


def outcome(answer: Answer) -> tuple[int, int, list[int]]:
    assert answer.status == 202, answer
    body = answer.json()
    return body["accepted"], body["duplicates"], [one["index"] for one in body["rejected"]]


def counted(collector: Collector) -> Counter[tuple[str, str]]:
    rows = collector.usage(by="customer,meter")["rows"]
    return Counter({(row["customer"], row["meter"]): row["value"] for row in rows})


def test_event_counts_once_and_a_conflicting_duplicate_is_a_dead_letter(collector: Collector) -> None:
    assert outcome(send(collector, event(5))) == (1, 0, [])
    assert outcome(send(collector, [event(5), event(6), event(6), event(5, value=4), "?"])) == (1, 2, [3, 4])
    assert outcome(send(collector, event(5, customer="bolt"))) == (0, 0, [0])
    assert counted(collector) == {("acme", "tokens"): 5 + 6}
    letters = collector.get("/v1/dead-letters", token=ADMIN).json()["dead_letters"]
    by_error = {letter["error"]: letter for letter in letters}
    other = by_error.pop("id: was counted with another value")
    assert other["event"]["value"] == 4
    noise = by_error.pop("is not an object")
    assert [*by_error] == ["id: was counted with another customer"]
    page = collector.get("/v1/dead-letters", token=ADMIN, limit="2").json()
    rest = collector.get("/v1/dead-letters", token=ADMIN, cursor=page["next"]).json()
    assert page["dead_letters"] + rest["dead_letters"] == letters

    path = f"/v1/dead-letters/{other['id']}"
    again = collector.send("POST", f"{path}/replay")
    assert (again.status, again.json()["detail"]) == (409, "the event id: was counted with another value")
    assert collector.send("POST", f"{path}/replay", event(8, value=40)).json()["accepted"] == 1
    assert collector.get(path, token=ADMIN).status == 404
    assert collector.send("DELETE", f"/v1/dead-letters/{noise['id']}?why=noise").status == 204
    assert len(collector.get("/v1/dead-letters", token=ADMIN).json()["dead_letters"]) == 1
    assert counted(collector)["acme", "tokens"] == 5 + 6 + 40
    done = [entry["action"] for entry in entries(collector)]
    assert done == ["dead_letter.replay", "dead_letter.discard"]
    replayed, discarded = ((entry["before"], entry["after"]) for entry in entries(collector))
    named = {"source": other["event"]["source"], "meter": "tokens"}
    before = {**named, "id": other["event"]["id"], "error": other["error"]}
    assert replayed == (before, {**named, "id": event(8)["id"], "again": False}), "and nothing of what is in them"
    assert discarded == ({"error": "is not an object"}, {"why": "noise"})
    deep = b'{"id": ' + b"[" * 500 + b"]" * 500 + b"}"
    assert outcome(send(collector, b"[" + deep + b', {"\\u0000": 1}]')) == (0, 0, [0, 1])
    kept = [
        dead_letter["event"] for dead_letter in collector.get("/v1/dead-letters", token=ADMIN).json()["dead_letters"]
    ]
    assert "(nested too deeply to be kept)" in kept
    assert {"\0": 1} in kept
    assert checked(collector)[0] == 0


@only_sqlite("database")
def test_only_services_report_events_in_each_supported_form(collector: Collector) -> None:
    for token in (EDGE, READ, ADMIN, OWN):
        assert send(collector, event(1), token).status == 403
    for path, method in (("", "GET"), ("/x", "GET"), ("/x/replay", "POST"), ("/x?why=y", "DELETE")):
        assert collector.send(method, f"/v1/dead-letters{path}", token=SERVICE).status == 403
    assert counted(collector) == {}
    lines = b"\n".join(orjson.dumps(event(number)) for number in range(3))
    assert outcome(send(collector, lines, content_type="application/x-ndjson")) == (3, 0, [])
    packed = zstandard.ZstdCompressor().compress(orjson.dumps([event(number) for number in range(5)]))
    assert outcome(send(collector, packed, content_encoding="zstd")) == (2, 3, [])
    cloud = {"specversion": "1.0", "id": "c1", "source": "s", "type": "runs", "subject": "nobody", "data": {"value": 9}}
    for body in ([cloud], cloud):
        answer = send(collector, body, content_type="application/cloudevents-batch+json")
    assert outcome(answer) == (0, 1, [])
    assert counted(collector)["nobody", "runs"] == 9, "names that are not known are kept"
    for body, status in ((b"{", 400), (b"[]", 400), (b"x" * (5 << 20), 413)):
        assert send(collector, body).status == status
    assert send(collector, b"x", content_encoding="gzip").status == 415
    assert send(collector, packed[:9], content_encoding="zstd").status == 400
    assert outcome(send(collector, event(9, meter="requests")))[2] == [0], "a service may not report a meter of edges"


@pytest.mark.parametrize("number", [3000, pytest.param(250_000, marks=pytest.mark.soak)])
def test_events_sent_twice_count_once_while_the_collector_is_killed(
    collector: Collector, number: int, seed: int
) -> None:
    """Each event counts once, and the ledger equals an independent sum."""
    chance = random.Random(seed)
    made = [
        event(one, customer=chance.choice(["acme", "bolt"]), meter=chance.choice(["tokens", "runs"]))
        for one in range(number)
    ]
    expected: Counter[tuple[str, str]] = Counter()
    for one in made:
        expected[one["customer"], one["meter"]] += one["value"]
    parts = []
    for _ in range(2):
        order = made[:]
        chance.shuffle(order)
        parts += [order[begin : begin + 100] for begin in range(0, number, 100)]
    accepted, lock = Counter[str](), threading.Lock()
    ended = threading.Event()

    def client() -> None:
        while True:
            with lock:
                if not parts:
                    return
                part = parts.pop()
            while True:
                try:
                    answer = send(collector, part)
                except OSError:
                    assert not ended.wait(0.02)
                    continue
                if answer.status == 202:
                    break
                assert answer.status == 503, answer
            with lock:
                accepted["accepted"] += answer.json()["accepted"]
                accepted["rejected"] += len(answer.json()["rejected"])

    clients = [threading.Thread(target=client, daemon=True) for _ in range(4)]
    for one in clients:
        one.start()
    try:
        for share in (0.7, 0.4):
            until(lambda share=share: len(parts) < share * number / 50, "some were sent", seconds=100)
            collector.kill()
            collector.start()
        for one in clients:
            one.join(100)
        assert not any(client.is_alive() for client in clients)
    finally:
        ended.set()
    assert counted(collector) == {what: value for what, value in expected.items() if value}
    assert accepted["rejected"] == 0
    assert accepted["accepted"] <= number, "what was counted when it was killed is a duplicate when it comes again"
    assert checked(collector)[0] == 0


def test_events_create_no_edge_and_verify_names_a_changed_event(collector: Collector, database: str) -> None:
    assert outcome(send(collector, [event(number) for number in range(20)])) == (20, 0, [])
    assert outcome(send(collector, [{**event(20), "customer": "bolt", "value": 0}])) == (1, 0, [])
    assert collector.get("/v1/edges").json() == {"edges": []}
    assert collector.metric("collector_edges") == 0
    assert collector.metric("collector_events_total", result="accepted") == 21
    code, output = checked(collector)
    assert (code, "0 quarantined, 21 events; total 57" in output) == (0, True), output
    collector.end()
    changed = change(database, "UPDATE events SET value = value + 1 WHERE id = 'e3'")
    assert changed == 1
    code, output = checked(collector)
    assert code == 1
    assert "edge ~events: acme tokens - of - in the minute" in output
    change(database, "UPDATE events SET value = value - 1 WHERE id = 'e3'")
    change(database, "DELETE FROM events WHERE id = 'e4'")
    assert checked(collector)[0] == 1


def change(database: str, statement: str) -> int:
    """Change the database without the collector, and return the number of changed rows."""

    async def run() -> int:
        opened = await Database.connect(database)
        try:
            async with opened.writing() as connection:
                return (await connection.exec_driver_sql(statement)).rowcount
        finally:
            await opened.close()

    return asyncio.run(run())


def test_sender_with_too_many_waiting_events_gets_429() -> None:
    async def play() -> None:
        database: Any = None  # The writer never reaches the database.
        metrics = Metrics()
        intake = EventWriter(database, KnownNames((), (), metrics), metrics)
        waiting = EventRequest("worker", [(0, UsageEvent("s", "1", "acme", "tokens", 1, 0))] * WAITING_EVENTS_MAX, ())
        tasks = Tasks()
        tasks.start("sender", intake.write_events(waiting))
        await turned(lambda: not intake.has_room("worker"), "the event writer holds the batch")
        call: Any = SimpleNamespace(request=None, holder=SimpleNamespace(label="worker"))
        settings = SimpleNamespace(meters={})
        resources: Any = SimpleNamespace(database=database, metrics=metrics, events=intake, settings=settings)
        with pytest.raises(ProblemError) as refused:
            await EventHandlers(resources).ingest_events(call)
        assert (refused.value.status, refused.value.headers) == (429, {"Retry-After": "1"})
        await tasks.cancel()
        assert intake.has_room("worker")
        half = EventRequest("worker", waiting.events[: WAITING_EVENTS_MAX // 2], ())
        tasks.start("sender", intake.write_events(half))
        await turned(lambda: not intake.has_room("worker"), "its share is used up")
        assert intake.has_room("other")
        await tasks.cancel()

    asyncio.run(asyncio.wait_for(play(), 10))


def test_token_with_many_dead_letters_leaves_room_for_other_tokens() -> None:
    def create(token: str, count: int) -> list[DeadLetterRow]:
        return [DeadLetterRow(f"{token}{number}", 0, token, "why", "{}") for number in range(count)]

    stored = select_letters(create("wrong", 2 * DEAD_LETTERS_MAX), {"old": DEAD_LETTERS_MAX // 2})
    assert 0 < len(stored) <= DEAD_LETTERS_MAX // 4 + 1
    held = {"old": DEAD_LETTERS_MAX // 2, "wrong": len(stored)}
    assert len(select_letters(create("honest", 100), held)) == 100
    assert select_letters(create("honest", 2), {"old": DEAD_LETTERS_MAX - 1}) == create("honest", 1)
