"""Observe a proxy's behaviour on a row and describe it in a few words."""

import asyncio
import re

from tests.contract.case import Answered, Asked, Fault, Whole
from tests.contract.stage import connect, dribble
from tests.contract.upstream import Endpoint, Recorder, meanwhile
from tests.support.wire import Cut, Message, Wire

SILENCE = 0.6
"""A proxy counts as silent after this number of seconds without data."""

STATUS = re.compile(rb"(?:^|\n|(?<=[^\n]))HTTP/1\.[01] ([0-9]{3})")


def request_words(request: Message) -> str:
    """Describe a request at the upstream: its line without the version, and the length of its body."""
    line = request.first.rpartition(" ")[0]
    line = line if len(line) <= 40 else f"{line[:37]}..."
    return f"{line} +{len(request.body)}" if request.body else line


def expected_of(row: Asked | Answered) -> str:
    """Describe the expectation of a row for this edge in that form."""
    if isinstance(row, Asked):
        requests = [_seen(seen.line, len(seen.body)) for seen in row.seen]
        return words([str(status) for status in row.answers], requests, ended=row.ends)
    got = row.got
    if isinstance(got, Whole):
        return answer_words(got.status, len(got.body))
    return str(got.status) if isinstance(got, Fault) else "502 or cut off"


def _seen(line: str, body: int) -> str:
    line = line.rpartition(" ")[0]
    line = line if len(line) <= 40 else f"{line[:37]}..."
    return f"{line} +{body}" if body else line


def words(statuses: list[str], requests: list[str], *, ended: bool) -> str:
    """Describe statuses, forwarded requests, and the end of the connection."""
    text = ", ".join(statuses) or "no answer"
    passed = f" | {', '.join(requests)}" if requests else ""
    return f"{text}{passed}{' | closed' if ended else ''}"


def answer_words(status: int, body: int) -> str:
    """Describe a complete answer."""
    return f"{status} +{body}" if body else str(status)


async def observe_asked(row: Asked, port: int, recorder: Recorder) -> str:
    """Send a row's bytes to a proxy in front of this recorder. Describe the results."""
    client = await connect(port, row.source)
    async with meanwhile(dribble(client, row.sent)):
        heard, ended = await _hear(client)
    client.closes()
    statuses = [status.decode() for status in STATUS.findall(heard) if not status.startswith(b"1")]
    requests = [request_words(request) for request in recorder.requests]
    requests += ["something odd"] * len(recorder.odd) + ["the beginning of a request"] * recorder.within
    return words(statuses, requests, ended=ended)


async def _hear(client: Wire) -> tuple[bytes, bool]:
    """Read until the end or until SILENCE. Return the bytes and whether the connection ended."""
    heard = b""
    while True:
        try:
            async with asyncio.timeout(SILENCE):
                if not await client.has_more():
                    return heard, True
                heard += await client.gets_bytes(len(client.has()))
        except TimeoutError:
            return heard, False
        except (ConnectionError, Cut):
            return heard, True


async def observe_answered(row: Answered, port: int, endpoint: Endpoint) -> str:
    """Answer a request through a proxy with a row's bytes. Describe the client's answer."""
    client = await connect(port)
    try:
        async with meanwhile(_serve(row, endpoint)), asyncio.timeout(SILENCE * 3):
            await client.sends(row.to)
            method = row.to.partition(b" ")[0].decode()
            while (answer := await client.gets_answer(method)).status < 200 and answer.status != 101:
                pass
            return answer_words(answer.status, len(answer.body))
    except TimeoutError:
        return "waits"
    except (Cut, ConnectionError):
        return "cut off"
    except (AssertionError, ValueError) as odd:  # The strict reader rejects the answer.
        return f"odd: {str(odd)[:60]}"
    finally:
        await asyncio.sleep(0)
        client.closes()


async def _serve(row: Answered, endpoint: Endpoint) -> None:
    upstream = await endpoint.accepts()
    try:
        await upstream.gets_request()
        await dribble(upstream, row.sent)
        if row.then == "closes":
            upstream.sends_eof()
        elif row.then == "resets":
            upstream.aborts()
        await asyncio.Event().wait()
    except (Cut, ConnectionError, TimeoutError, AssertionError):
        pass
    finally:
        upstream.closes()
