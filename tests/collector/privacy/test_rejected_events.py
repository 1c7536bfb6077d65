"""Rejected events name customers in forms that services choose: an erasure finds each."""

import base64
import gzip
from urllib.parse import quote

import orjson
import pytest
import sqlalchemy as sa

from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.schema import dead_letters
from edgeproxy.collector.events.event_writer import LETTER_CHARACTERS_MAX, format_document
from edgeproxy.collector.privacy.rejected_events import match_events, names_one
from tests.support.used_database import use_database

NAME = "acme-7"
INNER = orjson.dumps({"customer": NAME, "mail": "ada@example.com"})


def encode(content: bytes) -> str:
    return base64.b64encode(content).decode()


EVENTS: dict[str, tuple[object, bool]] = {
    "own": ({"customer": NAME, "id": "1"}, True),
    "cloud": ({"subject": NAME}, True),
    "list": ({"customer": [NAME]}, True),
    "object": ({"customer": {"name": NAME}}, True),
    "no field": ({"Customer": NAME}, True),
    "within": ({"data": {"customer": NAME}}, True),
    "text": (f"customer={NAME}&value=7", True),
    "JSON in text": (INNER.decode(), True),
    "JSON in JSON": ({"data": orjson.dumps(INNER.decode()).decode()}, True),
    "path": ({"subject": f"customers/{NAME}/keys"}, True),
    "percent": ({"subject": quote(f"customers/{NAME}", safe="").replace("a", "%61")}, True),
    **{f"Base64 after {at}": ({"data_base64": encode(b"x" * at + INNER)}, True) for at in range(3)},
    "URL-safe Base64": ({"data": base64.urlsafe_b64encode(b"\xff\xfb\xef" + INNER).decode().rstrip("=")}, True),
    "gzip": ({"data_base64": encode(gzip.compress(INNER))}, True),
    "cut off": ({"customer": NAME, "more": "x" * LETTER_CHARACTERS_MAX}, True),
    "another's": ({"customer": "bolt", "dimensions": {"peer": NAME}}, False),
    "longer name": ({"customer": [f"{NAME}7"]}, False),
    "nobody's": ({"data_base64": encode(gzip.compress(b"of bolt"))}, False),
    "no gzip": ({"data_base64": encode(b"\x1f\x8b\x08 broken")}, False),
}


@pytest.mark.parametrize("kind", EVENTS)
def test_erasure_finds_the_name_in_each_form(kind: str) -> None:
    document, is_own = EVENTS[kind]
    assert names_one(format_document(document), [NAME], if_doubtful=True) is is_own  # type: ignore[arg-type]


def test_search_of_the_database_passes_by_none(database: str) -> None:
    async def do(opened: Database) -> None:
        async with opened.writing() as connection:
            rows = [
                {"id": kind, "received": 1, "token": "t", "error": "e", "event": format_document(document)}  # type: ignore[arg-type]
                for kind, (document, _) in EVENTS.items()
            ]
            await connection.execute(sa.insert(dead_letters), rows)
            matched = await connection.execute(sa.select(dead_letters.c.id).where(match_events([NAME])))
            found = set(matched.scalars())
        assert {kind for kind, (_, is_own) in EVENTS.items() if is_own} - found == set()

    use_database(database, do)


def test_export_has_no_event_that_may_be_anothers() -> None:
    events = {kind: format_document(document) for kind, (document, _) in EVENTS.items()}  # type: ignore[arg-type]
    kept = [kind for kind, event in events.items() if names_one(event, [NAME], if_doubtful=False)]
    assert kept == ["own", "cloud", "list", "object"]
