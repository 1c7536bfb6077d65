"""Page data in the database: sessions, links, checks. And the status while the database is unavailable."""

import asyncio
import gzip
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest
from aiohttp.test_utils import make_mocked_request

from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.schema import DAY
from edgeproxy.collector.pages import checks, sessions
from edgeproxy.collector.pages import status as status_module
from edgeproxy.collector.pages.checks import RegionChecks
from edgeproxy.collector.pages.public_usage import LATE_SECONDS, PublicUsage, round_to_digits
from edgeproxy.collector.pages.rendering import SECURITY
from edgeproxy.collector.pages.sessions import Link, SignedIn
from edgeproxy.collector.pages.status import StatusPages
from edgeproxy.config.collector.pages import StatusPage
from tests.support.credited import count, run

NOW = 1_800_000_000.0
OPS = SignedIn("operator:ops", frozenset({"admin"}), None, NOW)


def test_session_ends_when_idle_old_or_displaced(database: str) -> None:
    async def work(opened: Database) -> None:
        async with opened.writing() as connection:
            secret = await sessions.begin_session(connection, OPS, NOW)
        async with opened.reading() as connection:
            found = await sessions.find_session(connection, secret, NOW + sessions.IDLE_SECONDS)
            assert found is not None
            assert (found.who, secret in found.form) == (OPS, False)
            assert await sessions.find_session(connection, found.sha256, NOW) is None
            assert await sessions.find_session(connection, secret, NOW + sessions.IDLE_SECONDS + 1) is None
        late = NOW + sessions.SECONDS_MAX
        async with opened.writing() as connection:
            await sessions.record_use(connection, found, late)
            assert await sessions.find_session(connection, secret, late) is not None
            assert await sessions.find_session(connection, secret, late + 1) is None
            secrets = [
                await sessions.begin_session(connection, OPS, late + n)
                for n in range(sessions.SESSIONS_PER_PERSON_MAX + 1)
            ]
            alive = [await sessions.find_session(connection, secret, late + 20) is not None for secret in secrets]
            assert alive == [False, *[True] * sessions.SESSIONS_PER_PERSON_MAX]

    run(database, work)


def test_a_link_works_once_for_a_while_and_there_are_few(database: str) -> None:
    async def work(opened: Database) -> None:
        async with opened.writing() as connection:
            link = Link("contact:a@b.example", "acme")
            made = [await sessions.create_link(connection, link, NOW) for _ in range(sessions.LINKS_MAX + 1)]
            assert made[-1] is None
            assert await sessions.create_link(connection, Link(link.label, "bolt"), NOW) is not None
            first, second = made[0] or "", made[1] or ""
            assert await sessions.use_up_link(connection, first, NOW) == link
            assert await sessions.use_up_link(connection, first, NOW) is None
            assert await sessions.use_up_link(connection, second, NOW + sessions.LINK_SECONDS) is None

    run(database, work)


def test_public_usage_counts_whole_days_rounded_to_two_digits(database: str) -> None:
    today = int(NOW) // DAY * DAY

    async def work(opened: Database) -> None:
        usage = PublicUsage(["calls", "tokens"])
        settings = StatusPage.model_validate({"usage": ["calls", "tokens"]})
        status = StatusPages(opened, settings, "http://127.0.0.1:9100", RegionChecks(opened, settings))
        assert usage.list_totals() == []
        for day, calls in ((0, 5_000_000), (-1, 1_200_000), (-7, 34_567), (-8, 7_000_000)):
            await count(opened, today + day * DAY + 43_200, ("acme", "calls", calls, "m"), ("bolt", "calls", 1, "m"))
        async with opened.reading(whole=True) as connection:
            await usage.refresh(connection, today + LATE_SECONDS - 1)
            assert usage.list_totals() == [("calls", 7_000_000), ("tokens", 0)], "yesterday may still come"
            await usage.refresh(connection, today + LATE_SECONDS)
            assert usage.list_totals() == [("calls", 1_200_000), ("tokens", 0)]
        await usage.refresh(None, today + LATE_SECONDS + 60)  # type: ignore[arg-type]  # Nothing is read.
        await status.refresh(today + LATE_SECONDS)
        assert orjson.loads(status.answers["json"].body)["usage"] == {
            "days": 7,
            "meters": {"calls": 1_200_000, "tokens": 0},
        }
        assert "<dt>calls</dt><dd>1,200,000</dd>" in status.answers["page en"].body.decode()

    run(database, work, "acme", "bolt")


@pytest.mark.parametrize(("value", "shown"), [(0, 0), (7, 7), (99, 99), (109, 100), (987_654_321, 980_000_000)])
def test_public_figures_have_two_digits(value: int, shown: int) -> None:
    assert round_to_digits(value) == shown


class Away:
    """A database that cannot be had."""

    @asynccontextmanager
    async def reading(self) -> Any:
        """Fail."""
        raise OSError("nobody answers")
        yield


@pytest.mark.both_databases
def test_status_that_is_not_known_yet_has_the_security_fields_of_a_page(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status_module, "FIRST_RENDER_SECONDS", 0.0)

    async def work(opened: Database) -> None:
        settings = StatusPage.model_validate({})
        status = StatusPages(opened, settings, "http://127.0.0.1:9100", RegionChecks(opened, settings))
        answer = await status.answer_page(make_mocked_request("GET", "/status"))
        assert (answer.status, answer.headers["Retry-After"]) == (503, "5")
        assert answer.headers.items() >= SECURITY.items()

    run(database, work)


def test_request_right_after_the_start_waits_for_the_first_rendering(database: str) -> None:
    async def work(opened: Database) -> None:
        settings = StatusPage.model_validate({})
        status = StatusPages(opened, settings, "http://127.0.0.1:9100", RegionChecks(opened, settings))
        answer, _ = await asyncio.gather(status.answer_page(make_mocked_request("GET", "/status")), status.refresh(NOW))
        assert answer.status == 200

    run(database, work)


def test_status_page_shows_the_cached_status_during_a_database_outage(database: str) -> None:
    settings = StatusPage.model_validate({"regions": {"eu": {"url": "http://127.0.0.1:1/x"}}})

    async def work(opened: Database) -> None:
        asked = RegionChecks(opened, settings)
        asked.note("eu", NOW, 0.05, 1.0)
        asked.note("eu", NOW, None, 1.0)
        await asked.write()
        asked.note("eu", NOW, 0.05, 1.0)
        await asked.write()
        async with opened.reading() as connection:
            day = int(NOW) // DAY * DAY
            assert await checks.fetch_counts(connection, day) == {
                ("eu", day, "50"): 2,
                ("eu", day, "fast"): 2,
                ("eu", day, "failed"): 1,
            }
        status = StatusPages(opened, settings, "http://127.0.0.1:9100", asked)
        await status.refresh(NOW)
        before = status.answers["page en"].body.decode()
        assert "66.667%" in before
        assert " old, of " not in before
        status._database = Away()  # type: ignore[assignment]
        await status.refresh(NOW + 600)
        after = status.answers["page en"]
        assert "66.667%" in after.body.decode()
        assert "10 minutes old" in after.body.decode()
        assert gzip.decompress(after.zipped) == after.body
        assert b'"as_of": "2027-01-15T08:00:00Z"' in status.answers["json"].body

    run(database, work)


@pytest.mark.parametrize(
    ("seconds", "bucket"), [(0.0, "10"), (0.01, "10"), (0.0101, "25"), (9.0, "10000"), (60, "10000")]
)
def test_latencies_are_counted_in_buckets(seconds: float, bucket: str) -> None:
    assert checks.find_bucket(seconds) == bucket
