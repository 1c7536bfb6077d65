"""Run the contract rows over HTTP/2. The results must equal those over HTTP/1.1, except for connection fields.

The request rows run on two equal edges, one for each protocol, and the tests compare all answers and records. `UNSAID`
counts the rows without a form in HTTP/2 by reason. `python -m tests.contract --http2` lists them.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.contract import over_http2
from tests.contract.case import Answered, Asked, Broken, Fault, get
from tests.contract.conftest import HASTY
from tests.contract.http2_stage import MOMENTS, Books, Side
from tests.contract.over_http2 import UnsayableError, translate
from tests.contract.play import Play, Scene, several
from tests.contract.stage import Stage, check_fault, dribble
from tests.contract.stream_wire import StreamWire
from tests.contract.tables import ANSWERED, ASKED, PLAYS, SLOW
from tests.contract.unplayed import UNPLAYED
from tests.contract.upstream import check_fields, meanwhile
from tests.support.http2_wire import Http2Wire
from tests.support.wire import Cut, Message, Wire

OF_CONNECTIONS = frozenset(("connection", "transfer-encoding", "keep-alive"))
ROWS = [
    (family, row) for family, row in ANSWERED if b" HTTP/1.1\r\n" in row.to and b"upgrade:" not in row.to.lower()
]  # fmt: skip
"""HTTP/2 has no form of HTTP/1.0, and its WebSockets are another kind of request."""

UNSAID = {
    over_http2.SHAPE: 52,
    over_http2.CHUNKS: 55,
    over_http2.NO_FIELD: 26,
    over_http2.ABSOLUTE: 12,
    over_http2.ENDLESS: 6,
    over_http2.INCOMPLETE: 3,
}
"""The number of rows without a form in HTTP/2, by reason."""

PROTOCOLS_OWN = ("edge_http2_", "edge_identities_", "edge_usage_batches_", "edge_loop_lag_", "edge_loop_turn_")
"""Metrics that may differ: of the protocol, of keys in uncached heads, of attempts to reach the absent collector, and
of the measurements of a worker's lag and turns."""

PLAYED = [(family, row) for family, row in PLAYS if row.name not in UNPLAYED]
LATE = [(family, row) for family, row in SLOW if row.name not in UNPLAYED]


def sort_rows() -> tuple[list[tuple[str, Asked]], list[tuple[str, Asked]], Counter[str]]:
    """Return the rows that both protocols answer, the rows with a request that HTTP/2 resets as malformed, and the
    number of rows without a form in HTTP/2, by reason."""
    same, malformed, unsaid = [], [], Counter[str]()
    for family, row in ASKED:
        try:
            requests = translate(row)
        except UnsayableError as reason:
            unsaid[str(reason)] += 1
        else:
            (malformed if any(request.is_malformed() for request in requests) else same).append((family, row))
    return same, malformed, unsaid


SAME, MALFORMED, MISSING = sort_rows()


def each_asked(rows: list[tuple[str, Asked]]) -> pytest.MarkDecorator:
    names = [f"{family}-{row.name}" for family, row in rows]
    return pytest.mark.parametrize("case", [row for _, row in rows], ids=names)


def test_every_row_has_a_form_in_http2_or_a_reason() -> None:
    assert dict(MISSING) == UNSAID
    assert len(SAME) + len(MALFORMED) + sum(UNSAID.values()) == len(ASKED)


@pytest.fixture(scope="module")
def books(tmp_path_factory: pytest.TempPathFactory) -> tuple[Side, Side, Books, Books]:
    """Both edges after all rows, ended, with their records."""
    older = Side(tmp_path_factory.mktemp("older"), over_http2=False)
    newer = Side(tmp_path_factory.mktemp("newer"), over_http2=True)
    for side in (older, newer):
        side.ask([row for _, row in SAME])
    return older, newer, older.close(), newer.close()


@each_asked(SAME)
def test_request_is_handled_over_http2_as_over_http1(books: tuple[Side, Side, Books, Books], case: Asked) -> None:
    older, newer, *_ = books
    for side in (older, newer):
        if (failure := side.outcomes[id(case)].failure) is not None:
            raise failure
    assert newer.outcomes[id(case)] == older.outcomes[id(case)]


def test_the_access_logs_of_both_protocols_are_equal(books: tuple[Side, Side, Books, Books]) -> None:
    *_, older, newer = books
    assert {line.get("protocol") for line in older.log} == {"HTTP/1.1", None}
    assert {line.get("protocol") for line in newer.log} == {"HTTP/2", None}
    assert list(map(compare_line, newer.log)) == list(map(compare_line, older.log))


def compare_line(line: dict[str, Any]) -> dict[str, Any]:
    """Return the comparable members of a log line. HTTP/2 reads no part of a head that is too large, nor its path."""
    of_head = {"method", "path"} if line["status"] == 431 else set()
    return {name: value for name, value in line.items() if name not in MOMENTS | of_head | {"protocol"}}


def test_tables_spools_and_metrics_of_both_protocols_are_equal(books: tuple[Side, Side, Books, Books]) -> None:
    *_, older, newer = books
    assert sum(newer.spool.values()) > len(SAME)
    assert newer.spool == older.spool
    assert newer.usage == older.usage
    assert count(newer) == count(older)


def count(books: Books) -> dict[Any, float]:
    """Return the counting metrics that must be equal."""
    return {
        (name, labels): value
        for (name, labels), value in books.metrics.items()
        if name.endswith(("_total", "_count")) and not name.startswith(PROTOCOLS_OWN)
    }


@pytest.fixture(scope="module")
def malformed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Side]:
    side = Side(tmp_path_factory.mktemp("malformed"), over_http2=True)
    side.ask([row for _, row in MALFORMED])
    yield side
    side.stage.closes()


@each_asked(MALFORMED)
def test_a_request_that_is_malformed_in_http2(malformed: Side, case: Asked) -> None:
    if (failure := malformed.outcomes[id(case)].failure) is not None:
        raise failure


@pytest.fixture(scope="module")
def http2_stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder: Path = tmp_path_factory.mktemp("http2")
    stage = Stage(folder, [row for _, row in (*ROWS, *PLAYED)], http2=True)
    yield stage
    stage.closes()


@pytest.mark.parametrize("case", [row for _, row in ROWS], ids=[f"{family}-{row.name}" for family, row in ROWS])
def test_answer_is_relayed_over_http2_as_over_http1(http2_stage: Stage, case: Answered) -> None:
    http2_stage.run(answer(http2_stage, case))


async def answer(stage: Stage, case: Answered) -> None:
    """Run a row as `Stage.answer` does. The client's connection must serve the next request in any case."""
    endpoint = stage.endpoint_of(case)
    client = await Http2Wire(await stage.client()).begins()
    upstream = None
    try:
        await client.sends(stage.bytes_of(case, case.to))
        upstream = await endpoint.accepts()
        method = (await upstream.gets_request()).first.partition(" ")[0]
        async with meanwhile(_sends(upstream, case)) as answering:
            await check(client, case, method)
            await answering
        client.asked.clear()
        await client.sends(stage.bytes_of(case, get("/again")))
        serving = upstream if case.reused else await endpoint.accepts()
        assert (await serving.gets_request()).first == "GET /again HTTP/1.1"
        await serving.sends(b"HTTP/1.1 203 Again\r\nContent-Length: 5\r\n\r\nagain")
        again = await client.gets_answer()
        assert (again.status, again.body) == (203, b"again")
        serving.closes()
    finally:
        client.closes()
        if upstream is not None:
            upstream.closes()
    assert not endpoint.is_asked(), "a connection too many"


async def _sends(upstream: Wire, case: Answered) -> None:
    await dribble(upstream, case.sent)
    if case.then == "closes":
        upstream.sends_eof()
    elif case.then == "resets":
        upstream.aborts()


async def check(client: Http2Wire, case: Answered, method: str) -> None:
    got = case.got
    if isinstance(got, Broken):
        errors = (got.error, "connection_terminated") if case.then == "resets" else (got.error,)
        try:
            broken = await client.gets_answer(method)
        except Cut:
            return
        check_fault(broken, errors, method)
        return
    interim = []
    while (final := await client.gets_answer(method)).status < 200:
        interim.append(final.status)
    assert (tuple(interim), final.status) == (got.interim, got.status)
    assert not [name for name, _ in final.fields if name in OF_CONNECTIONS]
    if isinstance(got, Fault):
        check_fault(final, (got.error,), method)
        return
    assert final.body == got.body
    check_fields(final, tuple(line for line in got.has if _is_of_both(line)), got.lacks)
    assert _trailers(final) == tuple(line.lower() for line in got.trailers)


def _is_of_both(line: str) -> bool:
    return line.partition(":")[0].lower() not in OF_CONNECTIONS


def _trailers(message: Message) -> tuple[str, ...]:
    return tuple(f"{name}: {value}".lower() for name, value in message.trailers)


# ---- plays


def test_every_omitted_play_exists() -> None:
    assert UNPLAYED.keys() <= {row.name for _, row in (*PLAYS, *SLOW)}


async def act(stage: Stage, row: Play) -> None:
    """Run a play with a client that speaks HTTP/2."""

    async def connect(source: str) -> Wire:
        client = Http2Wire(await stage.client(source))
        client.window = row.name not in UNREAD
        return StreamWire(await client.begins())

    await row.run(Scene(stage.endpoint_of(row), connect, lambda data: stage.bytes_of(row, data)))


UNREAD = frozenset(("a client that never reads", "a client that never reads a stream"))
"""Plays whose client opens no windows."""


@pytest.mark.parametrize("scene", [row for _, row in PLAYED], ids=[f"{family}-{row.name}" for family, row in PLAYED])
def test_exchange_over_http2_goes_as_its_scene_says(http2_stage: Stage, scene: Play) -> None:
    http2_stage.run(act(http2_stage, scene))


@pytest.fixture(scope="module")
def late_over_http2(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[Play, BaseException | None]]:
    """The outcome of each row about timeouts, as in the fixture `late` of conftest.py."""
    rows = [row for _, row in LATE]
    timeouts = {"connect": "500ms", "response_head": "500ms", "idle": "500ms"}
    stage = Stage(tmp_path_factory.mktemp("hasty"), rows, http2=True, limits=HASTY, timeouts=timeouts)
    outcomes = stage.run(several([act(stage, row) for row in rows]))
    yield dict(zip(rows, outcomes, strict=True))
    stage.closes()


@pytest.mark.parametrize("scene", [row for _, row in LATE], ids=[f"{family}-{row.name}" for family, row in LATE])
def test_slow_peer_over_http2_runs_into_its_timeout(
    late_over_http2: dict[Play, BaseException | None], scene: Play
) -> None:
    if (wrong := late_over_http2[scene]) is not None:
        raise wrong
