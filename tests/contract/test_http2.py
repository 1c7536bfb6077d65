"""The rows about answers over HTTP/2: the same answers of an upstream come to the same, but for the connection."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.case import Answered, Broken, Fault, get
from tests.contract.stage import Stage, check_fault, dribble
from tests.contract.tables import ANSWERED
from tests.contract.upstream import check_fields, meanwhile
from tests.support.http2_wire import Http2Wire
from tests.support.wire import Cut, Message, Wire

OF_CONNECTIONS = frozenset(("connection", "transfer-encoding", "keep-alive"))
ROWS = [
    (family, row) for family, row in ANSWERED if b" HTTP/1.1\r\n" in row.to and b"upgrade:" not in row.to.lower()
]  # fmt: skip
"""HTTP/2 has no form of HTTP/1.0, and its WebSockets are another kind of request."""


@pytest.fixture(scope="module")
def http2_stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder: Path = tmp_path_factory.mktemp("http2")
    stage = Stage(folder, [row for _, row in ROWS], http2=True)
    yield stage
    stage.closes()


@pytest.mark.parametrize("case", [row for _, row in ROWS], ids=[f"{family}-{row.name}" for family, row in ROWS])
def test_an_answer(http2_stage: Stage, case: Answered) -> None:
    http2_stage.run(answer(http2_stage, case))


async def answer(stage: Stage, case: Answered) -> None:
    """As `Stage.answer`; the client's connection serves the next request whatever became of this one."""
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
