"""Concurrent steps of moves on PostgreSQL do not deadlock."""

from contextlib import suppress
from pathlib import Path

from edgeproxy.collector.accounts.change import ChangeRejectedError
from edgeproxy.collector.accounts.ids import generate_id
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.residency import arrival, departure
from edgeproxy.collector.residency.documents import parse_document
from loadtest.testbed.postgresql import Postgresql
from tests.support.credited import write
from tests.support.interleaved import interleave
from tests.support.sold import CALLER, sold


async def test_concurrent_arrival_and_departure_lock_rows_in_one_order(postgresql: Postgresql, tmp_path: Path) -> None:
    url, id_ = postgresql.database(), generate_id()
    document = parse_document(
        {"format": 1, "peer": generate_id(), "name": "acme", "settings": {"tier": "standard"}, "metadata": {"a": "b"}}
    )

    async with sold(tmp_path, url, "http://127.0.0.1:9") as (shop, _):
        settings = shop.known.model_copy(update={"residency": "us"})

        async def arrive(database: Database) -> None:
            await write(database, arrival.arrive, CALLER, id_, "eu", document, settings, is_last=False)

        async def step_away(database: Database) -> None:
            with suppress(ChangeRejectedError):  # It has not arrived.
                await write(database, departure.take_step, CALLER, "acme", "go", None, settings)

        await arrive(shop.database)
        await interleave(shop.database, url, arrive, "FOR NO KEY", step_away)
