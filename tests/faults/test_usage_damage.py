"""A spool that was damaged: what cannot be read is named and not shipped, and only a person owns up to it."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeproxy.edge.usage.segment import Record, parse_records
from edgeproxy.edge.usage.spool import list_segments
from edgeproxy.wire.batch import parse_batch
from loadtest.testbed.collector import checked
from loadtest.testbed.relay import CALM, DOWN
from loadtest.testbed.waiting import until
from tests.faults.counting.site import Site


@pytest.fixture
def site(tmp_path: Path, seed: int) -> Iterator[Site]:
    with Site(tmp_path, seed) as site:
        yield site


def test_flipped_bit_stops_shipping_until_an_operator_declares_the_loss(site: Site) -> None:
    edge, collector = site.edge, site.collector
    edge.load()
    edge.shipped_more()
    edge.relay.fates = DOWN
    until(lambda: edge.status()["usage"]["batches"] > 4, "batches wait")
    edge.kill_all()
    (path,) = list_segments(edge.state / "spool")
    content = bytearray(path.read_bytes())
    found = [record for record in parse_records(bytes(content)) if isinstance(record, Record)]
    flipped = found[-3]
    content[flipped.offset + flipped.size // 2] ^= 4
    # And the end is torn, which is no damage.
    path.write_bytes(content + content[found[-1].offset :][:20])
    lost = parse_batch(flipped.body)
    before = edge.watermark

    edge.relay.fates = CALM
    edge.start()
    shipping = until(
        lambda: (it := edge.status()["usage"]["shipping"])["state"] == "stopped" and it, "shipping has stopped"
    )
    assert f"{path}:{flipped.offset}: " in shipping["why"]
    assert before <= edge.watermark == lost.seq - 1
    sealed = edge.status()["usage"]["batches"]
    until(lambda: edge.status()["usage"]["batches"] > sealed + 2, "the edge seals")
    assert edge.ready()
    edge.unload()
    code, output = edge.spool("verify")
    assert code == 1
    assert f"{path}:{flipped.offset}: " in output
    assert sum(edge.ledger().values()) < sum(edge.usage().values())
    assert checked(collector)[0] == 0

    assert edge.spool("discard", "--damaged", "--yes")[0] == 0
    expected = Counter(edge.usage())
    for customer, _, _, value in lost.rows:
        expected[customer] -= value
    until(lambda: edge.ledger() == expected, f"the ledger has {expected}")
    (gap,) = collector.edges()[edge.id]["gaps"]
    assert gap["from_seq"] == gap["to_seq"] == lost.seq
    assert edge.spool("verify")[0] == 0
    code, output = checked(collector)
    assert code == 0
    assert " 1 gap," in output
