"""Jobs give way to waiting pages, but not for ever. A page reads data shared by its calls once."""

import asyncio

import pytest
import sqlalchemy as sa
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from edgeproxy.base.log import RateLimitedLog
from edgeproxy.collector.api.endpoint import READ_VALUES
from edgeproxy.collector.api.internal_client import Inside
from edgeproxy.collector.database import precedence
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.periodic import Job, repeat
from edgeproxy.collector.database.postgresql import READERS_MAX
from edgeproxy.collector.database.precedence import giving_way
from edgeproxy.collector.database.read_once import ReadValues, fetch_once, reading_once
from edgeproxy.collector.pages.sessions import Session, SignedIn
from tests.support.credited import run

pytestmark = pytest.mark.both_databases

ONE = sa.select(sa.literal(1))
READS = 20


@pytest.mark.parametrize("way", ["reading", "writing"])
def test_yielding_job_resumes_when_no_request_waits(database: str, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precedence, "RESTS", 1e9)
    monkeypatch.setattr(precedence, "WAIT_MAX", 3600.0)

    async def work(opened: Database) -> None:
        done: list[int] = []

        async def do() -> None:
            with giving_way():
                for _ in range(2):  # A job that has not worked does not rest.
                    async with opened.reading() if way == "reading" else opened.writing() as connection:
                        await connection.execute(ONE)
                done.append(1)

        async with asyncio.TaskGroup() as tasks:
            with opened.precedence.claim():
                tasks.create_task(do())
                for _ in range(READS):
                    with opened.precedence.claim():  # A page, and a page never waits.
                        async with opened.reading() as connection:
                            await connection.execute(ONE)
                assert not done, "a request waits"
        assert done

    run(database, work)


def test_a_job_waits_no_longer_than_it_may(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precedence, "WAIT_MAX", 0.01)

    async def work(opened: Database) -> None:
        with opened.precedence.claim(), giving_way():
            async with asyncio.timeout(60), opened.writing() as connection:
                await connection.execute(ONE)
            async with asyncio.timeout(60), opened.reading() as connection:
                await connection.execute(ONE)

    run(database, work)


def test_a_job_does_not_go_on_between_the_parts_of_a_page(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precedence, "RESTS", 1e9)
    monkeypatch.setattr(precedence, "WAIT_MAX", 3600.0)
    monkeypatch.setattr(precedence, "LINGER", 3600.0)

    async def work(opened: Database) -> None:
        async def do() -> None:
            with giving_way():
                async with opened.reading() as connection:
                    await connection.execute(ONE)

        with opened.precedence.claim():
            pass
        async with asyncio.TaskGroup() as tasks:
            job = tasks.create_task(do())
            for _ in range(READS):
                async with opened.reading() as connection:
                    await connection.execute(ONE)
            assert not job.done()
            job.cancel()

    run(database, work)


def test_urgent_job_does_not_yield_to_requests(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precedence, "RESTS", 1e9)
    monkeypatch.setattr(precedence, "WAIT_MAX", 3600.0)

    async def work(opened: Database) -> None:
        done = asyncio.Event()

        async def do() -> None:
            for _ in range(2):
                async with opened.writing() as connection:
                    await connection.execute(ONE)
            done.set()

        job = Job("urgent", 3600.0, "it failed", do, gives_way=False)
        async with asyncio.TaskGroup() as tasks:
            with opened.precedence.claim():
                running = tasks.create_task(repeat(job, RateLimitedLog(60.0)))
                async with asyncio.timeout(60):
                    await done.wait()
                running.cancel()

    run(database, work)


def test_a_page_waits_for_no_connection_of_jobs(database: str) -> None:
    async def work(opened: Database) -> None:
        held = asyncio.Barrier(READERS_MAX + 1)

        async def do() -> None:
            with giving_way():
                async with opened.reading() as connection:
                    await connection.execute(ONE)
                    await held.wait()
                    await held.wait()

        async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
            for _ in range(READERS_MAX):  # As many as there are connections of jobs.
                tasks.create_task(do())
            await held.wait()
            async with opened.reading() as connection:
                await connection.execute(ONE)
            await held.wait()

    run(database, work)


async def test_calls_of_one_page_share_fetched_values_and_changes_fetch_again() -> None:
    fetched: list[str] = []

    async def fetch() -> str:
        fetched.append("fetched")
        return f"value {len(fetched)}"

    values: ReadValues = {}
    for _ in range(2):  # Two calls of one page.
        with reading_once(values):
            assert await fetch_once("key", fetch) == "value 1"
    with reading_once(values), reading_once(None):  # A change.
        assert await fetch_once("key", fetch) == "value 2"
    assert await fetch_once("key", fetch) == "value 3", "no page"


async def test_concurrent_calls_of_a_page_read_once_and_again_if_the_first_fails() -> None:
    fetched: list[str] = []

    async def fetch() -> str:
        fetched.append("fetched")
        await asyncio.sleep(0)
        if len(fetched) == 1:
            raise OSError("the connection is lost")
        return f"value {len(fetched)}"

    with reading_once({}):
        results = await asyncio.gather(*(fetch_once("key", fetch) for _ in range(3)), return_exceptions=True)
    assert isinstance(results[0], OSError)
    assert results[1:] == ["value 2", "value 2"]


async def test_page_drops_fetched_values_before_its_change() -> None:
    seen: list[ReadValues] = []

    class Answering:
        async def answer_inner_call(self, inner: web.Request, *_: object) -> web.Response:
            seen.append(inner[READ_VALUES])
            return web.Response()

    page = make_mocked_request("POST", "/console/customers/acme")
    inside, who = Inside(Answering()), SignedIn("operator", frozenset(), None)  # type: ignore[arg-type]
    session = Session("", who, 0, 0, "")
    # A fact that was read twice would be asked for once.
    for method, below in (("GET", ""), ("GET", "/keys"), ("PATCH", ""), ("GET", "")):
        await inside.ask(page, session, method, f"/v1/customers/{{customer}}{below}", names={"customer": "acme"})
    before, again, _, after = seen
    assert before is again
    assert after is not before
