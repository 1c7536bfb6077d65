"""Rejected events may name customers in any form. An erasure finds each one."""

import base64
import gzip
import time
import zlib
from urllib.parse import quote

import orjson
import pytest
import sqlalchemy as sa
import zstandard

from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.schema import dead_letters
from edgeproxy.collector.events.event_writer import LETTER_CHARACTERS_MAX, format_document
from edgeproxy.collector.privacy.rejected_events import has_text, match_events, names_one
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
    "Zstandard": ({"data_base64": encode(zstandard.compress(INNER))}, True),
    "URL-safe Zstandard": ({"data": base64.urlsafe_b64encode(zstandard.compress(INNER)).decode()}, True),
    **{f"zlib {level}": ({"data_base64": encode(zlib.compress(INNER, level))}, True) for level in (1, 5, 6, 9)},
    "hexadecimal": ({"data": INNER.hex()}, True),
    "gzip in capital hexadecimal": ({"data": gzip.compress(INNER).hex().upper()}, True),
    "escape of JSON": ({"data": '{"customer":"acm\\u0065-7"}'}, True),
    "escapes within escapes": ({"data": orjson.dumps('{"customer":"acm\\u0065-7"}').decode()}, True),
    "escape of JSON in Base64": ({"data": encode(b'{"customer":"acm\\u0065-7"}')}, True),
    "UTF-16": ({"data_base64": encode(INNER.decode().encode("utf-16"))}, True),
    "MessagePack": ({"data_base64": encode(b"\x82\xa8customer\xa6acme-7\xa1v\x37")}, True),
    "MessagePack before a digit": ({"data_base64": encode(b"\x92\xa6acme-7\x37")}, True),
    "MessagePack in Zstandard": ({"data_base64": encode(zstandard.compress(b"\x92\xa6acme-7\x37"))}, True),
    "longer name in Base64": ({"data_base64": encode(b'{"customer":"acme-77"}')}, False),
    "cut off": ({"customer": NAME, "more": "x" * LETTER_CHARACTERS_MAX}, True),
    "another's": ({"customer": "bolt", "dimensions": {"peer": NAME}}, False),
    "longer name": ({"customer": [f"{NAME}7"]}, False),
    "nobody's": ({"data_base64": encode(gzip.compress(b"of bolt"))}, False),
    "no Zstandard": ({"data_base64": encode(b"\x28\xb5\x2f\xfd broken")}, False),
    "no gzip": ({"data_base64": encode(b"\x1f\x8b\x08 broken")}, False),
}


@pytest.mark.parametrize("kind", EVENTS)
def test_erasure_finds_the_name_in_each_form(kind: str) -> None:
    document, is_own = EVENTS[kind]
    assert names_one(format_document(document), [NAME], if_doubtful=True) is is_own  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [kind for kind, (_, is_own) in EVENTS.items() if is_own and kind != "cut off"])
def test_erasure_finds_an_end_user_in_each_form(kind: str) -> None:
    document, _ = EVENTS[kind]
    assert has_text(format_document(document), [NAME])  # type: ignore[arg-type]
    assert not has_text(format_document(document), ["user-12"])  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["ada löve", 'a"b\\c', "x/y%z"])
def test_erasure_finds_an_end_user_with_any_name(name: str) -> None:
    inner = orjson.dumps({"value": name})
    for document in ({"value": name}, {"data": inner.decode()}, {"data": encode(inner)}, {"data": quote(name)}):
        assert has_text(format_document(document), [name])


def test_event_with_many_encodings_is_read_in_bounded_time() -> None:
    packed = encode(gzip.compress(b"x" * (1 << 20), 9))
    bomb = encode(gzip.compress("\n".join([packed] * 700).encode(), 9))
    started = time.process_time()
    assert names_one(format_document({"data": bomb}), [NAME], if_doubtful=True)
    assert names_one(format_document({"data": "\\u005c" * 3000}), [NAME], if_doubtful=True) is False
    assert time.process_time() - started < 5.0


def test_database_search_misses_no_event_of_the_customer(database: str) -> None:
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


def test_export_has_no_event_with_a_doubtful_owner() -> None:
    events = {kind: format_document(document) for kind, (document, _) in EVENTS.items()}  # type: ignore[arg-type]
    kept = [kind for kind, event in events.items() if names_one(event, [NAME], if_doubtful=False)]
    assert kept == ["own", "cloud", "list", "object"]
