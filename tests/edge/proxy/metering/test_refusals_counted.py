"""Counts of refusals, by limit and by the edge's knowledge of other counts."""

from edgeproxy.edge.errors import RejectedError
from edgeproxy.edge.proxy.metering.refusals import RefusalMeters
from tests.edge.proxy.asking import is_limited, request
from tests.support.transcript import Edge, ok


class Tally:
    """Something that is counted."""

    def __init__(self) -> None:
        self.total = 0

    def add(self, n: int = 1) -> None:
        """Count."""
        self.total += n


def test_refusals_count_by_limit_and_certainty_and_a_busy_table_refuses_none() -> None:
    made: dict[str, Tally] = {}
    busy = True

    def counter(split: str) -> tuple[Tally, ...]:
        if busy:
            raise RejectedError(503, "busy")
        return (made.setdefault(split, Tally()),)

    refusals = RefusalMeters(counter)
    refusals.record_refusal("basic", certain=True)
    assert not made
    busy = False
    for limit, certain in (("basic", True), ("basic", True), ("basic", False), ("two words", True)):
        refusals.record_refusal(limit, certain=certain)
    assert {split: tally.total for split, tally in made.items()} == {
        '{"certain":"yes","limit":"basic"}': 2,
        '{"certain":"no","limit":"basic"}': 1,
        '{"certain":"yes","limit":"~other"}': 1,
    }


async def test_refusals_meter_counts_refused_requests_only(edge: Edge) -> None:
    edge.config["meters"] = {"requests": {"count": "requests"}, "refused": {"count": "refusals"}}
    for _ in range(60):
        await edge.passes(request(), ok())
    for _ in range(4):
        is_limited(await edge.refuses(request()), "basic")
    assert edge._supervisor is not None
    assert sorted(row for row in edge._supervisor.usage_totals() if row[3]) == [
        ("acme", "refused", "v1", 4, '{"certain":"yes","limit":"basic"}'),
        ("acme", "requests", "v1", 60),
    ]
