"""The search finds customers by part of a name, ignores case, lists prefixes first and treats no text as a pattern."""

import asyncio

import orjson
import pytest
import sqlalchemy as sa

from edgeproxy.collector.accounts.models import CreateCustomerRequest
from edgeproxy.collector.customer_search import search_customers
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.page_tables import contacts
from edgeproxy.collector.database.schema import customers
from edgeproxy.collector.database.search_text import fold, list_part_searches, list_trigrams

pytestmark = pytest.mark.both_databases

NAMES = ("north-acme", "acme", "Acme-Europe", "acme-2", "a_b.c", "axb.c", "zebra")


async def test_search_finds_parts_in_any_case_and_lists_prefixes_first(database: str) -> None:
    opened = await Database.connect(database)
    rows = [
        {"id": f"id-{name}", "name": name, "tier": "t", "settings": '{"tier":"t"}', "metadata": "{}", "version": 1}
        | {"external_id": f"crm_{name}"}
        for name in NAMES
    ]
    async with opened.writing() as connection:
        await connection.execute(sa.insert(customers), [{**row, "created_at": 1} for row in rows])

        async def find(text: str, limit: int = 10) -> list[str]:
            return [found["name"] for found in await search_customers(connection, opened, text, limit)]

        async def why(text: str) -> list[str]:
            return [found["matched"] for found in await search_customers(connection, opened, text, 10)]

        assert await why("id-zebra") == ["id"]
        assert await why("crm_zebra") == await why("rm_zebra") == ["external_id"]
        assert await why("zeb") == await why("EBRA") == ["name"]
        assert await find("acme") == ["acme", "acme-2", "Acme-Europe", "north-acme"]
        assert await find("acme", 3) == ["acme", "acme-2", "Acme-Europe"]
        assert await find("acme", 2) == ["acme", "acme-2"]
        assert await find("ACME-") == ["Acme-Europe", "acme-2"]
        assert await find("ebr") == ["zebra"]
        assert await find("br") == [], "two characters are in too many"
        assert await find("_b.") == ["a_b.c"], "no character stands for another"
        assert await find("%b.") == []
        assert await find("\\_b") == []
        assert await find("?b.c") == await find("[_]b.c") == await find("a*c") == []
        assert await find("id-zebra") == ["zebra"]
        assert await find("crm_a") == ["a_b.c", "acme", "acme-2", "axb.c", "Acme-Europe"], "how it begins is first"
        assert await find("crm_acme-2") == ["acme-2"]
        assert await find("M_ACME-e") == ["Acme-Europe"], "a part of an external id"
        assert await find("cr") == []
        await connection.execute(sa.update(customers).values(external_id_sealed="sealed"))
        assert await find("crm_a") == [], "a hash has no beginning"
        assert await find("rm_acme") == [], "nor parts"
    await opened.close()


@pytest.mark.parametrize("field", ["name", "organisation"])
async def test_search_finds_a_part_of_the_name_that_a_person_wrote(database: str, field: str) -> None:
    written = 'Zéphyr "Süd" مؤسسة & Co'
    opened = await Database.connect(database)
    new = CreateCustomerRequest.model_validate({"name": "c1", "tier": "t", "metadata": {field: written, "x": "hidden"}})
    async with opened.writing() as connection:
        await connection.execute(
            sa.insert(customers),
            [
                {"id": f"id-{name}", "name": name, "tier": "t", "settings": '{"tier":"t"}', "version": 1}
                | {"metadata": metadata, "created_at": 1}
                for name, metadata in (
                    ("c1", orjson.dumps(new.metadata).decode()),
                    ("c2", "enc1:AAAA"),
                    ("c3", '{"why":"\\"name\\":\\"Zéphyr"}'),
                )
            ],
        )

        async def find(text: str) -> list[tuple[str, str]]:
            matches = await search_customers(connection, opened, text, 10)
            return [(match["name"], match["matched"]) for match in matches]

        assert await find("Zéphyr") == await find("SüD") == await find("مؤسسة") == [("c1", "name")]
        assert await find("hidden") == await find("Zephyr") == []
    await opened.close()


def test_search_finds_the_beginning_of_a_readable_address_or_domain(database: str) -> None:
    async def do() -> None:
        opened = await Database.connect(database)
        row = {"name": "zebra", "tier": "t", "settings": '{"tier":"t"}', "metadata": "{}", "version": 1}
        person = {"customer": "z", "email": "ann.smith@firm.example", "domain": "firm.example"}
        async with opened.writing() as connection:
            await connection.execute(sa.insert(customers), [{**row, "id": "z", "created_at": 1}])
            await connection.execute(sa.insert(contacts), [person])

            async def why(text: str) -> list[str]:
                return [match["matched"] for match in await search_customers(connection, opened, text, 10)]

            assert await why("ann") == await why("Ann.Smith@fi") == await why(person["email"]) == ["email"]
            assert await why("firm.ex") == await why("@firm") == ["domain"]
            assert await why("an") == await why("smith") == await why("xann") == await why("@ann") == []
            await connection.execute(sa.update(contacts).values(email_sealed="sealed"))
            assert await why("ann") == await why("firm.ex") == [], "a hash has no beginning"
        await opened.close()

    asyncio.run(do())


def test_search_for_the_beginning_of_an_address_uses_an_index(database: str) -> None:
    async def do() -> list[str]:
        opened = await Database.connect(database)
        async with opened.reading(whole=True) as connection:  # SET LOCAL needs a transaction.
            plans = []
            for column in (contacts.c.email, contacts.c.domain):
                sought = sa.select(contacts.c.customer).where(opened.beginning(column, "ann"))
                text = sought.compile(connection.sync_connection, compile_kwargs={"literal_binds": True})
                if not opened.is_sqlite:
                    await connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
                explain = "EXPLAIN QUERY PLAN" if opened.is_sqlite else "EXPLAIN"
                plans.append(str((await connection.exec_driver_sql(f"{explain} {text}")).all()))
        await opened.close()
        return plans

    for plan in asyncio.run(do()):
        assert "Index" in plan or "INDEX" in plan, plan


def test_search_for_a_part_uses_the_index(database: str) -> None:
    """The index has an expression. A search with a different expression would read all customers."""

    async def do() -> list[str]:
        opened = await Database.connect(database)
        plans = []
        async with opened.reading() as connection:
            statement = list_part_searches("Acme", 10, is_sqlite=opened.is_sqlite)[-1]
            if not opened.is_sqlite:
                await connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
            explained = sa.text(f"EXPLAIN {'QUERY PLAN ' if opened.is_sqlite else ''}{statement.text}")
            bound = explained.bindparams(*statement._bindparams.values())
            plans = [str(row) for row in await connection.execute(bound)]
        await opened.close()
        return plans

    plans = asyncio.run(do())
    assert any("customers_searched" in step for step in plans), plans


def test_text_is_split_into_sorted_unique_trigrams() -> None:
    assert list_trigrams(fold("ÄAcMe/%")) == sorted(["Äac", "acm", "cme", "me/", "e/%"])
    assert list_trigrams("aaaa") == ["aaa"]
