"""`POST /v1/batches` follows the contract on both databases."""

import random
import time
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace

import orjson
import pytest
import zstandard

from edgeproxy.collector.database.schema import MINUTE_VALUE_MAX
from edgeproxy.collector.ledger.known_names import KnownNames
from edgeproxy.collector.ledger.received_batch import BEHIND_SECONDS_MAX
from edgeproxy.wire.batch import BODY_BYTES_MAX, FIRST, NUMBER_MAX, Gap, compute_digest, format_batch, format_headers
from loadtest.testbed.batch_chains import ROWS, Chain
from loadtest.testbed.collector import ADMIN, EDGE, ONE, READ, REGIONAL, SERVICE, Collector, checked, sha256
from loadtest.testbed.http_client import Wire
from loadtest.testbed.waiting import until
from tests.support.collector_fixtures import StartCollector

pytestmark = pytest.mark.both_databases


def test_repeated_batch_is_counted_once(collector: Collector) -> None:
    chain = Chain()
    first, second = chain.next(), chain.next()
    for batch, watermark in ((first, 1), (first, 1), (second, 2), (first, 2), (second, 2)):
        answer = collector.post(batch)
        assert (answer.status, answer.json()) == (200, {"watermark": watermark})
    assert collector.counted(chain) == chain.total


def test_different_batch_with_a_stored_seq_is_a_fork(collector: Collector) -> None:
    chain = Chain()
    first = chain.next()
    collector.post(first)
    answer = collector.post(first._replace(rows=ROWS[:1]))
    assert (answer.status, answer.json()["error"]) == (409, "fork")
    assert collector.counted(chain) == chain.total


def test_batch_after_a_missing_one_answers_409_with_the_expected_seq(collector: Collector) -> None:
    chain = Chain()
    assert collector.post(chain.next()).status == 200
    chain.next()
    for batch in (chain.next(), chain.next()._replace(prev="f" * 64)):
        answer = collector.post(batch)
        assert answer.status == 409
        assert answer.json()["expected"] == 2
    assert collector.post(chain.made[1]).json() == {"watermark": 2}


def test_unreadable_body_is_quarantined_and_the_watermark_moves(collector: Collector) -> None:
    chain = Chain()
    collector.post(chain.next())
    broken = b'{"edge": '
    fields = {"Edge-Id": chain.edge, "Edge-Seq": "2", "Edge-Hash": compute_digest(broken)}
    for _ in range(2):
        answer = collector.post(broken, fields=fields)
        assert (answer.status, answer.json()["watermark"]) == (422, 2)
    assert collector.post(broken + b" ", fields={**fields, "Edge-Hash": compute_digest(broken + b" ")}).status == 409
    after = chain.next()._replace(seq=3, prev=compute_digest(broken))
    assert collector.post(after).json() == {"watermark": 3}
    edges = collector.edges()
    assert [one["seq"] for one in edges[chain.edge]["quarantined"]] == [2]
    assert collector.metric("collector_quarantined_batches") == sum(len(edge["quarantined"]) for edge in edges.values())
    assert collector.counted(chain) == 14


def test_quarantined_batch_is_counted_when_it_arrives_intact(collector: Collector) -> None:
    chain = Chain()
    first, second = chain.next(), chain.next()
    fields = format_headers(first, format_batch(first))
    assert collector.post(b"torn", fields=fields).status == 422
    assert collector.post(second).status == 200
    for _ in range(2):
        assert collector.post(first).json() == {"watermark": 2}
    assert collector.counted(chain) == chain.total
    edge = collector.edges()[chain.edge]
    assert edge["quarantined"] == []
    assert edge["last"]["from"] == "2026-09-21T12:00:05Z"


@pytest.mark.parametrize(
    "changed",
    [{"Edge-Hash": "0" * 64}, {"Edge-Id": "another"}, {"Content-Encoding": "br"}, {"Content-Encoding": "zstd"}],
)
def test_body_that_differs_from_its_headers_is_quarantined(collector: Collector, changed: dict[str, str]) -> None:
    chain = Chain()
    answer = collector.post(chain.next(), fields=changed)
    assert (answer.status, answer.json()["watermark"]) == (422, 1)
    assert collector.counted(chain) == 0


@pytest.mark.parametrize(
    "changed",
    [
        {"Edge-Id": ""},
        {"Edge-Id": "a b"},
        {"Edge-Seq": ""},
        {"Edge-Seq": "0"},
        {"Edge-Seq": "1.0"},
        {"Edge-Seq": str(NUMBER_MAX + 1)},
        {"Edge-Hash": ""},
        {"Edge-Hash": "0" * 63},
    ],
)
def test_batch_with_invalid_headers_changes_nothing(collector: Collector, changed: dict[str, str]) -> None:
    chain = Chain()
    answer = collector.post(chain.next(), fields=changed)
    assert (answer.status, answer.json()["error"]) == (422, "headers")
    assert "watermark" not in answer.json()
    assert chain.edge not in collector.edges()
    assert collector.post(chain.made[0]).status == 200


def test_gap_moves_the_watermark_past_lost_batches(collector: Collector) -> None:
    chain = Chain()
    collector.post(chain.next())
    gap = chain.next(gap=Gap(2, 5, "the disk was damaged"))
    for _ in range(2):
        assert collector.post(gap).json() == {"watermark": 5}
    # The hash of the lost batches is unknown. The next batch may have any `prev`, and the one after it must follow it.
    chain.prev = "e" * 64
    assert collector.post(chain.next()).json() == {"watermark": 6}
    assert collector.post(chain.next()._replace(prev="d" * 64)).json()["error"] == "chain"
    assert collector.post(chain.made[-1]).json() == {"watermark": 7}
    late = Chain(chain.edge, chain.region)
    late.next()
    assert collector.post(late.next()._replace(seq=3)).json()["error"] == "fork"
    edges = collector.edges()
    assert edges[chain.edge]["gaps"] == [{"from_seq": 2, "to_seq": 5, "why": "the disk was damaged"}]
    assert collector.metric("collector_gaps") == sum(len(edge["gaps"]) for edge in edges.values())
    assert collector.counted(chain) == chain.total


@pytest.mark.parametrize("last", [2, 5])
def test_quarantined_gap_is_accepted_when_it_arrives_intact(collector: Collector, last: int) -> None:
    chain = Chain()
    collector.post(chain.next())
    gap = chain.next(gap=Gap(2, last, "the disk was damaged"))._replace(prev=FIRST)
    assert collector.post(b"torn", fields=format_headers(gap, format_batch(gap))).status == 422
    for _ in range(2):
        assert collector.post(gap).json() == {"watermark": last}
    chain.prev = "e" * 64
    assert collector.post(chain.next()).json() == {"watermark": last + 1}
    edge = collector.edges()[chain.edge]
    assert (edge["gaps"], edge["quarantined"]) == ([{"from_seq": 2, "to_seq": last, "why": "the disk was damaged"}], [])
    assert collector.counted(chain) == chain.total
    assert checked(collector)[0] == 0


def test_zstd_body_is_decompressed_within_a_bound(collector: Collector) -> None:
    chain = Chain()
    batch = chain.next()
    squeeze = zstandard.ZstdCompressor()
    fields = format_headers(batch, format_batch(batch)) | {"Content-Encoding": "zstd"}
    assert collector.post(squeeze.compress(format_batch(batch)), fields=fields).json() == {"watermark": 1}
    bomb = squeeze.compress(bytes(400 << 20))
    assert len(bomb) < 64 << 10
    answer = collector.post(bomb, fields={**fields, "Edge-Seq": "2", "Edge-Hash": "b" * 64})
    assert (answer.status, answer.json()["watermark"]) == (422, 2)
    assert "larger than 16 MiB" in answer.json()["detail"]
    assert collector.process is not None
    status = Path(f"/proc/{collector.process.pid}/status").read_text()
    (peak,) = [int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")]
    assert peak < 300_000, "KiB"


def test_too_long_body_is_quarantined_and_does_not_stop_its_edge(collector: Collector) -> None:
    chain = Chain()
    fields = format_headers(chain.next(), b"")
    answer = collector.post(bytes(BODY_BYTES_MAX + 1), fields=fields)
    assert (answer.status, answer.json()["watermark"]) == (422, 1)


def test_batch_from_over_a_day_ahead_is_quarantined_and_can_be_replayed(collector: Collector) -> None:
    now, chain = int(time.time()), Chain()
    assert collector.post(chain.next()).status == 200
    chain.since = now + 86400 + 600
    for batch in (chain.next(), gap := chain.next(gap=Gap(3, 4, "lost"))):
        answer = collector.post(batch)
        assert (answer.status, answer.json()["watermark"]) == (422, batch.seq)
        assert "more than a day ahead" in answer.json()["detail"]
    assert collector.counted(chain) == 7
    chain.since = now + 86400 - 600
    within = chain.next()._replace(seq=4, prev=compute_digest(format_batch(gap)))
    assert collector.post(within).status == 200, "a clock may be ahead"
    assert collector.counted(chain) == 14
    assert collector.send("POST", f"/v1/quarantine/{chain.edge}/2/replay").status == 200
    assert collector.counted(chain) == 21


def test_batch_over_five_years_old_is_quarantined(collector: Collector) -> None:
    chain = Chain()
    for since in (0, 600_000_000, int(time.time()) - BEHIND_SECONDS_MAX - 600):
        chain.since = since
        answer = collector.post(batch := chain.next())
        assert (answer.status, answer.json()["watermark"]) == (422, batch.seq)
        assert "more than five years old" in answer.json()["detail"]
    chain.since = int(time.time()) - BEHIND_SECONDS_MAX + 600
    assert collector.post(chain.next()).status == 200, "an edge may have been away"
    assert collector.counted(chain) == 7


def test_batch_above_the_largest_value_is_quarantined_alone(collector: Collector) -> None:
    large, other = Chain(), Chain()
    most = ("acme", "requests", "v1", MINUTE_VALUE_MAX)
    assert collector.post(large.next(most)).status == 200
    assert collector.post(other.next()).status == 200
    answer = collector.post(large.next(most))
    assert (answer.status, answer.json()["watermark"]) == (422, 2)
    assert collector.post(large.next(most, most, seconds=60)).status == 422
    assert collector.post(large.next(seconds=60)).json() == {"watermark": 4}
    assert collector.counted(large, other) == MINUTE_VALUE_MAX + 7 + 7


def test_batches_with_unknown_names_are_stored_and_flagged(collector: Collector) -> None:
    chain = Chain()
    stranger = f"customer-of-{chain.edge}"
    before = collector.metric("collector_unknown_names", kind="customer")
    for _ in range(2):
        assert collector.post(chain.next((stranger, "tokens", "v1", 5), *ROWS)).status == 200
    assert collector.counted(chain) == chain.total == 24
    assert collector.usage(customer=stranger, by="customer,meter") == {
        "total": 10,
        "rows": [{"customer": stranger, "meter": "tokens", "value": 10}],
        "unknown": {"customer": [stranger], "meter": ["tokens"]},
    }
    assert stranger in collector.usage(by="customer")["unknown"]["customer"]
    assert "unknown" not in collector.usage(customer="acme", meter="requests", by="meter")
    assert collector.metric("collector_unknown_names", kind="customer") == before + 1
    assert collector.output.count(stranger) == 1


def test_names_of_customers_of_the_database_are_known(collector: Collector) -> None:
    chain, before = Chain(), collector.metric("collector_unknown_names", kind="customer")
    early, late = f"early-{chain.edge}", f"late-{chain.edge}"
    assert collector.send("POST", "/v1/customers", {"name": early, "tier": "basic"}).status == 201
    assert collector.post(chain.next((early, "requests", "v1", 5), (late, "requests", "v1", 5))).status == 200
    assert collector.metric("collector_unknown_names", kind="customer") == before + 1
    assert collector.usage(by="customer")["unknown"]["customer"].count(late) == 1
    assert early not in collector.usage(by="customer")["unknown"]["customer"]
    assert collector.send("POST", "/v1/customers", {"name": late, "tier": "basic"}).status == 201
    assert late not in collector.usage(by="customer").get("unknown", {}).get("customer", [])


async def test_names_are_no_longer_unknown_once_the_database_knows_them() -> None:
    counts: dict[str, int] = {}
    metrics = SimpleNamespace(unknown_names=counts.__setitem__)
    created: set[str] = set()

    async def find_customers(names: Iterable[str]) -> set[str]:
        return created & set(names)

    names = KnownNames((), ("requests",), metrics, find_customers)
    await names.record_names(["new", "stranger"], ["requests"])
    assert counts == {"customer": 2, "meter": 0}
    created.add("new")
    await names.refresh_unknown()
    assert counts == {"customer": 1, "meter": 0}


def test_only_edge_tokens_ship_and_only_for_their_edge_or_region(collector: Collector) -> None:
    before = collector.metric("collector_denied_total")
    chain, other, far = Chain("bound"), Chain(region="eu-bound"), Chain()
    first = chain.next()
    for token, status in ((None, 401), ("", 401), ("x", 401), (READ, 403), (ADMIN, 403), (SERVICE, 403)):
        answer = collector.post(first, token=token)
        assert answer.status == status
        assert answer["content-type"] == "application/problem+json"
        assert ("www-authenticate" in answer) == (status == 401)
    assert collector.post(first, token=ONE).status == 200
    assert collector.post(other.next(), token=ONE).status == 403
    assert collector.post(other.made[0], token=REGIONAL).status == 200
    assert collector.post(far.next(), token=REGIONAL).status == 403
    assert collector.post(far.made[0]).status == 200
    assert collector.metric("collector_denied_total") == before + 8


def test_edge_accepts_batches_of_its_own_token_only(collector: Collector) -> None:
    chain, thief = Chain(region="eu-bound"), Chain(region="eu-bound")
    assert collector.post(chain.next()).status == 200
    before, counted = collector.edges()[chain.edge], collector.counted(chain)
    assert before["token"] == f"token-{sha256(EDGE)[:8]}"
    # Another token of this region sends the next batch, a repeated batch, an unreadable body and a gap.
    thief.edge, thief.made, thief.prev, thief.since = chain.edge, [*chain.made], chain.prev, chain.since
    broken = {"Edge-Id": chain.edge, "Edge-Seq": "2", "Edge-Hash": "a" * 64}
    stolen = thief.next(("acme", "requests", "v1", 1000))
    assert collector.post(stolen, token=REGIONAL).status == 403
    assert "bound to another token" in collector.post(stolen, token=REGIONAL).json()["detail"]
    assert collector.post(chain.made[0], token=REGIONAL).status == 403
    assert collector.post(b"x", token=REGIONAL, fields=broken).status == 403
    assert collector.post(thief.next(gap=Gap(3, 9, "x")), token=REGIONAL).status == 403
    # The edge's own token sends a batch of another region.
    moved = Chain(chain.edge, "elsewhere", chain.since)
    moved.made, moved.prev = [*chain.made], chain.prev
    assert "bound to region eu-bound" in collector.post(moved.next()).json()["detail"]
    assert {**collector.edges()[chain.edge], "lag_s": before["lag_s"]} == before
    assert collector.counted(chain) == counted
    assert collector.post(chain.next()).status == 200
    # An admin binds the edge to the other token.
    body = orjson.dumps({"token": "regional", "region": "eu-bound"})
    assert collector.patch(f"/v1/edges/{chain.edge}", body, READ).status == 403
    assert collector.patch(f"/v1/edges/{chain.edge}", body).status == 200
    following = chain.next()
    assert collector.post(following).status == 403
    assert collector.post(following, token=REGIONAL).status == 200


def test_rejected_batch_of_a_new_edge_records_no_edge(collector: Collector) -> None:
    far, lost = Chain(), Chain()
    assert collector.post(far.next(), token=REGIONAL).status == 403
    refused = collector.post(lost.next(gap=Gap(1, 5, "the disk was lost")))
    assert (refused.status, "admin has to consent" in refused.json()["detail"]) == (403, True)
    assert not {far.edge, lost.edge} & collector.edges().keys()
    # An admin's consent admits the gap once, up to the stated number.
    path = f"/v1/edges/{lost.edge}"
    assert collector.patch(path, b'{"gap_to": 4}').status == 200
    assert collector.post(lost.made[0]).status == 403
    assert collector.patch(path, b'{"gap_to": 5}').status == 200
    assert collector.post(lost.made[0]).json() == {"watermark": 5}
    assert collector.post(lost.next()).json() == {"watermark": 6}
    assert collector.patch(path, b'{"gap_to": 9}').status == 409
    assert collector.patch(path, b'{"gap_to": -1}').status == 422


def test_tokens_expire_and_are_replaced(start_collector: StartCollector) -> None:
    old, new = sha256("old"), sha256("new")
    tokens = [
        {"name": "eu", "sha256": [old, new], "role": "edge", "region": "eu"},
        {"sha256": sha256("gone"), "role": "edge", "expires": "2020-01-01"},
        {"sha256": sha256(READ), "role": "read"},
    ]
    collector, chain = start_collector(tokens=tokens), Chain(region="eu")
    assert collector.post(chain.next(), token="old").status == 200
    assert collector.post(chain.next(), token="new").status == 200
    assert collector.edges()[chain.edge]["token"] == "eu"
    expired = collector.post(chain.next(), token="gone")
    assert (expired.status, expired.json()["detail"]) == (401, f"the token token-{sha256('gone')[:8]} has expired")


def test_hostile_requests_change_nothing(collector: Collector, seed: int) -> None:
    chance = random.Random(seed)
    chain = Chain()
    collector.post(chain.next())
    good = format_batch(chain.next())
    fields = format_headers(chain.made[1], good)
    for _ in range(40):
        content = bytearray(good)
        content[chance.randrange(len(good))] ^= 1 << chance.randrange(8)
        seq = chance.choice([0, 1, 9, 1 << 40])
        answer = collector.post(bytes(content), fields={**fields, "Edge-Seq": str(seq)})
        assert answer.status == {0: 422, 1: 409, 9: 409, 1 << 40: 409}[seq], (seq, answer)
    assert collector.post(chain.made[1]).json() == {"watermark": 2}
    assert collector.counted(chain) == chain.total
    assert "a fault in the collector" not in collector.output


def test_full_memory_answers_429_until_there_is_room(collector: Collector) -> None:
    """Announced bodies reserve all memory until their connections close."""
    fields = {"Edge-Id": "e", "Edge-Seq": "1", "Edge-Hash": "0" * 64, "Authorization": f"Bearer {EDGE}"}
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    head = f"POST /v1/batches HTTP/1.1\r\nHost: c\r\n{lines}Content-Length: {BODY_BYTES_MAX}\r\n\r\n".encode()
    chain = Chain()
    with Wire(collector.port) as one, Wire(collector.port) as two:
        one.send(head)
        two.send(head)

        def refused() -> bool:
            answer = collector.post(chain.made[-1] if chain.made else chain.next())
            return answer.status == 429 and 1 <= int(answer["retry-after"]) <= 30

        until(refused, "there is no room")
    until(lambda: collector.post(chain.made[-1]).status == 200, "there is room again")
    assert collector.metric("collector_busy_total") >= 1


def test_unknown_path_names_the_openapi_document(collector: Collector) -> None:
    assert "/v1/openapi.json" in orjson.loads(collector.get("/nowhere").body)["detail"]
    assert "/v1/batches" in collector.get("/v1/openapi.json", token=None).json()["paths"]
    assert collector.get("/v1/batches").status == 405
