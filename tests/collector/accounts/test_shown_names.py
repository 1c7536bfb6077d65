"""Names of customers for people: as they were written, on one line. An unreadable row has its name in the API."""

from pathlib import Path

import orjson
import pytest
import sqlalchemy as sa
from pydantic_core import PydanticCustomError

from edgeproxy.collector.accounts import fields
from edgeproxy.collector.accounts.shown_names import fetch_names, find_distinct_names, format_shown_name
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.schema import customers
from edgeproxy.collector.encryption.data_keys import CIPHERTEXT
from tests.support.credited import run

PSEUDONYM = "c-0193e4a0-7c6b-7d2e-8f3a-1b2c3d4e5f60"


def test_shown_name_is_printable_and_stays_that_of_the_api_if_the_row_is_unreadable(tmp_path: Path) -> None:
    rows = {
        "zephyr": {"metadata": orjson.dumps({"name": " Zephyr\x1b\u202e\n GmbH\x7f"}).decode()},
        PSEUDONYM: {"metadata": orjson.dumps({"name": "Zoë & Co"}).decode(), "display_name": "zoe"},
        "damaged": {"metadata": f"{CIPHERTEXT}AAAA"},
        "c-damaged": {"metadata": f"{CIPHERTEXT}AAAA", "display_name": "zest"},
        "broken": {"metadata": '{"name"'},
        "listed": {"metadata": "[]"},
        "plain": {},
    }
    shown = {}

    async def work(database: Database) -> None:
        async with database.writing() as connection:
            for name, values in rows.items():
                own = sa.update(customers).where(customers.c.name == name)
                await connection.execute(own.values(version=2, **values))
        async with database.reading() as connection:
            shown.update({name: await fetch_names(connection, name) for name in (*rows, "nobody")})

    run(f"sqlite:///{tmp_path}/names.db", work, *rows)
    assert shown == {
        "zephyr": ("zephyr", "Zephyr GmbH"),
        PSEUDONYM: ("zoe", "Zoë & Co"),
        "damaged": ("damaged", "damaged"),
        "c-damaged": ("zest", "zest"),
        "broken": ("broken", "broken"),
        "listed": ("listed", "listed"),
        "plain": ("plain", "plain"),
        "nobody": ("nobody", "nobody"),
    }


@pytest.mark.parametrize("name", ["می\u200cخواهم", "👨\u200d👩\u200d👧 GmbH", "ad\u200dmin", "a\u202eb"])
def test_a_key_may_have_each_name_that_is_shown_as_it_was_written(name: str) -> None:
    if format_shown_name({"name": name}, "") == name:
        assert fields.parse_text(name) == name
    else:
        with pytest.raises(PydanticCustomError, match="cannot be used"):
            fields.parse_text(name)


def test_equal_names_begin_with_the_name_in_the_api(tmp_path: Path) -> None:
    rows = {"zephyr": "Zephyr", "zephyr-2": "Zephyr", "one": "W" * 80 + "1", "two": "W" * 80 + "2", "plain": ""}
    rows |= {
        "zoe": "Zo\u00eb",
        "zoe-2": "Zoe\u0308",
        "raad": "\u0631\u0627\u062f",
        "raad-2": "\u0631\u0627\u200c\u062f",
    }
    distinct: list[str] = []

    async def work(database: Database) -> None:
        async with database.writing() as connection:
            for name, shown in rows.items():
                own = sa.update(customers).where(customers.c.name == name)
                await connection.execute(own.values(metadata=orjson.dumps({"name": shown}).decode()))
        distinct.extend(await find_distinct_names(database, list(rows)))

    run(f"sqlite:///{tmp_path}/names.db", work, *rows)
    first, second, one, two, plain, *alike = distinct
    assert [name.partition(" ")[0] for name in alike] == ["zoe", "zoe-2", "raad", "raad-2"]
    assert (first, second, plain) == ("zephyr (Zephyr)", "zephyr-2 (Zephyr)", "plain")
    assert (one[:8], two[:8]) == ("one (WWW", "two (WWW")
