"""Changes with an Idempotency-Key: each is made once, whoever makes it, and so is its effect elsewhere."""

from typing import Any

import pytest
import sqlalchemy as sa

from edgeproxy.collector.accounts import idempotency
from edgeproxy.collector.accounts.ids import generate_id
from edgeproxy.collector.api.changes import find_idempotent_request, make_change
from edgeproxy.collector.api.responses import Result
from edgeproxy.collector.billing.credits import credits
from edgeproxy.collector.billing.journal import journal
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.schema import idempotency as table
from loadtest.testbed.postgresql import Postgresql
from tests.support.credited import ALICE, read, run, write
from tests.support.idempotent_calls import build_call
from tests.support.interleaved import interleave

ACME = "id-acme"


async def give(connection: Any) -> Result[dict[str, int]]:
    await credits.book_gift(connection, ALICE, ACME, generate_id(), 500, "sorry", None)
    return Result({"balance": await journal.fetch_balance(connection, ACME)})


def test_two_collectors_apply_a_change_of_one_idempotency_key_once(postgresql: Postgresql) -> None:
    url, call = postgresql.database(), build_call("once")
    answers: list[Result[dict[str, int]]] = []

    async def adjust(database: Database) -> None:
        answers.append(await make_change(database, call, give))

    async def work(database: Database) -> None:
        await interleave(database, url, adjust, "INSERT INTO credit_transactions", adjust)
        assert await read(database, journal.fetch_balance, ACME) == 500

    run(url, work, "acme")
    assert [answer.body for answer in answers] == [{"balance": 500}] * 2
    assert [dict(answer.headers) for answer in answers] == [{}, {"Idempotent-Replayed": "true"}]


def test_repeated_request_is_not_rejected_because_of_the_first_one(postgresql: Postgresql) -> None:
    """Each alone could withdraw all credits. Both at once have one answer."""
    url, call = postgresql.database(), build_call("once")
    replayed: list[bool] = []

    async def withdraw(connection: Any) -> Result[dict[str, int]]:
        await credits.book_withdrawal(connection, ALICE, ACME, generate_id(), 500, "wrong")
        return Result({})

    async def adjust(database: Database) -> None:
        replayed.append("Idempotent-Replayed" in (await make_change(database, call, withdraw)).headers)

    async def work(database: Database) -> None:
        await write(database, give)
        await interleave(database, url, adjust, "INSERT INTO credit_transactions", adjust)
        assert await read(database, journal.fetch_balance, ACME) == 0

    run(url, work, "acme")
    assert replayed == [False, True]


@pytest.mark.both_databases
def test_stored_answer_is_replaced_once_it_is_old(database: str) -> None:
    request = find_idempotent_request(build_call("once"))
    assert request is not None

    async def work(opened: Database) -> None:
        await write(opened, idempotency.store_answer, request, b"first")
        with pytest.raises(sa.exc.IntegrityError):
            await write(opened, idempotency.store_answer, request, b"second")
        assert await read(opened, idempotency.find_answer, request) == b"first"
        async with opened.writing() as connection:
            past = table.c.created_at - idempotency.ANSWER_RETENTION_MS
            await connection.execute(sa.update(table).values(created_at=past))
        await write(opened, idempotency.store_answer, request, b"third")
        assert await read(opened, idempotency.find_answer, request) == b"third"

    run(database, work)


def test_effect_elsewhere_follows_a_commit_alone(database: str) -> None:
    effects: list[int] = []
    tries: list[None] = []

    async def work(opened: Database) -> None:
        async def make(connection: Any) -> Result[dict[str, int]]:
            tries.append(None)
            number = len(tries)

            async def follow_up() -> None:
                assert (await read(opened, journal.fetch_balance, ACME)) == 500, "the change is committed"
                effects.append(number)

            created = await give(connection)
            if number == 1:
                raise sa.exc.IntegrityError("", None, ValueError("another collector made the same change"))
            return created._replace(follow_up=follow_up)

        call = build_call("once")
        for _ in range(2):
            await make_change(opened, call, make)
        call.query.dry_run = True
        assert (await make_change(opened, call, make)).body == {"balance": 1000}
        assert len(tries) == 3

    run(database, work, "acme")
    assert effects == [2]
