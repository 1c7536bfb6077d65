"""Database errors as the log shows them."""

import sqlalchemy as sa

from edgeproxy.base import log
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.schema import edges
from tests.support.used_database import use_database

PLANTED = "ada@planted.example"


def test_an_error_quotes_no_value_of_a_row(database: str) -> None:
    row = {"edge": PLANTED, "region": "eu", "seq": 0, "hash": "", "received": 0}

    async def work(opened: Database) -> None:
        try:
            async with opened.writing() as connection:
                await connection.execute(sa.insert(edges), row)
                await connection.execute(sa.insert(edges), row)
        except sa.exc.IntegrityError as error:
            said = [repr(error), str(log.format_exception(error))]
        assert [PLANTED in text for text in said] == [False, False]
        assert all("edges" in text for text in said), "the message names its subject"

    use_database(database, work)
