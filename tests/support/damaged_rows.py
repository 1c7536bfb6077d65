"""Damaged values in rows of a filled database: of all texts of a row, of one column, or drawn."""

import random
from collections.abc import Callable
from typing import Any, NamedTuple

import orjson
import sqlalchemy as sa

from edgeproxy.collector.database.billing_tables import plan_versions
from edgeproxy.collector.database.book_text import SEALED
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.personal_data import TABLES
from edgeproxy.collector.database.schema import metadata
from edgeproxy.collector.encryption.data_keys import CIPHERTEXT
from edgeproxy.collector.privacy.own_rows import select_own
from tests.support.used_database import use_database

HEADS = frozenset({"encryption_keys", "book_keys", "rollup", "audit_head", "credit_head", "minutes_floor"})
"""Tables with one row that everything depends on: a collector without it does not start."""
Columns = dict[str, tuple[str, str]]
Damage = Callable[[str], str | bytes | None]
"""Return a damaged value of a column, or None if this damage does not apply to it."""


def change_type(value: str) -> str | None:
    """JSON of another type."""
    return "7" if value[:1] in ("{", "[") else None


def change_shape(value: str) -> str | None:
    """JSON of the right type with other members."""
    return {"{": '{"x":["y"]}', "[": '[[null],{"x":7}]'}.get(value[:1])


def change_word(value: str) -> str | None:
    """A text that is neither an enum, a date, a decimal nor JSON."""
    return None if value.startswith((CIPHERTEXT, SEALED)) else "poison"


def change_ciphertext(value: str) -> str | None:
    """A ciphertext with one character changed."""
    if not value.startswith((CIPHERTEXT, SEALED)):
        return None
    return f"{value[:-6]}{'A' if value[-6] != 'A' else 'B'}{value[-5:]}"


def undecodable(value: str) -> bytes | None:
    """Bytes that are not UTF-8. Only SQLite stores them."""
    return None if value.startswith((CIPHERTEXT, SEALED)) else b"\xff\xfe"


def cut(value: str) -> str | None:
    """The first half of a value."""
    return value[: len(value) // 2] or None


def change_leaf(value: str, generator: random.Random) -> str | None:
    """JSON with one member, drawn, missing or of another type."""

    def change(node: Any) -> Any:
        if isinstance(node, dict) and node:
            name = generator.choice(sorted(node))
            if generator.random() < 0.1:
                return {other: node[other] for other in node if other != name}
            return {**node, name: change(node[name])}
        if isinstance(node, list) and node:
            place = generator.randrange(len(node))
            return [*node[:place], change(node[place]), *node[place + 1 :]]
        return generator.choice([None, "poison", 7, -1, 1e300, [], {}, [[1]], {"x": 1}, True])

    try:
        return orjson.dumps(change(orjson.loads(value))).decode() if value[:1] in ("{", "[") else None
    except orjson.JSONDecodeError:
        return None


DAMAGES: tuple[Damage, ...] = (change_word, change_ciphertext, change_type, change_shape, undecodable)
"""Damages of all texts of a row."""


COLUMNS: tuple[Columns, ...] = (
    {
        "alerts": ("kind", "poison"),
        "billing_details": ("payer", "[7]"),
        "dead_letters": ("event", "{"),
        "flags": ("settings", '{"customers":[null]}'),
        "incidents": ("severity", "poison"),
        "invoices": ("currency", "poison"),
        "reconciliations": ("meters", "poison"),
    },
    {
        "alerts": ("severity", "poison"),
        "customers": ("currency", "poison"),
        "incident_updates": ("state", "poison"),
        "reconciliations": ("kind", "poison"),
    },
)
"""Values of one column in the last row of a table. Each has stopped lists, jobs or pages."""


class Damaged(NamedTuple):
    """A damaged row: its key, and the former values of its columns."""

    table: str
    key: tuple[object, ...]
    columns: dict[str, str]


Texts = tuple[tuple[object, ...], dict[str, str]]
"""The key of a row, and its texts by column."""
Choice = tuple[tuple[object, ...], dict[str, str | bytes]]
"""The key of a row, and the new values of its columns."""


def damage_rows(url: str, damage: Damage) -> list[Damaged]:
    """Damage the texts of one row of each table, of acme or its plan if rows have owners. Return the former values."""

    def choose(table: str, rows: list[Texts]) -> Choice | None:
        for key, values in rows:
            if changed := {name: new for name, value in values.items() if (new := damage(value)) is not None}:
                return key, changed
        return None

    return use_database(url, lambda database: change_rows(database, choose))


def damage_columns(url: str, columns: Columns) -> list[Damaged]:
    """Write values into one column of the last row of tables."""

    def choose(table: str, rows: list[Texts]) -> Choice | None:
        return (rows[-1][0], dict([columns[table]])) if table in columns else None

    return use_database(url, lambda database: change_rows(database, choose))


def draw_damages(url: str, generator: random.Random) -> list[Damaged]:
    """Damage a column of a row of each table, both drawn, and all columns of one row in seven."""
    has_bytes = url.startswith("sqlite")
    kinds: list[Damage] = [change_word, change_ciphertext, change_type, change_shape, cut, lambda _: "ZZZ"]
    kinds += [lambda value: change_leaf(value, generator)] * 2 + [undecodable] * has_bytes

    def damage(value: str) -> str | bytes:
        drawn = (kind(value) for kind in generator.sample(kinds, len(kinds)))
        return next(new for new in drawn if new not in (None, value))

    def choose(table: str, rows: list[Texts]) -> Choice | None:
        key, values = generator.choice(rows)
        names = sorted(values) if generator.random() < 1 / 7 else [generator.choice(sorted(values))]
        if table == plan_versions.name:  # A version that can still be read, and differs, was edited in its file.
            return key, {name: cut(values[name]) or "" for name in names}
        return key, {name: damage(values[name]) for name in names}

    return use_database(url, lambda database: change_rows(database, choose))


async def change_rows(database: Database, choose: Callable[[str, list[Texts]], Choice | None]) -> list[Damaged]:
    """Write the values that `choose` returns for the rows of each table with texts. Return the former values."""
    damaged = []
    async with database.reading() as connection:
        (id_,) = (await connection.execute(sa.text("SELECT id FROM customers WHERE name = 'acme'"))).one()
    for table in metadata.tables.values():
        rows = [] if table.name in HEADS else await fetch_texts(database, table, id_)
        if rows and (chosen := choose(table.name, rows)) is not None:
            key, changed = chosen
            await _write(database, table, key, changed)
            before = dict(rows)[key]
            damaged.append(Damaged(table.name, key, {name: before[name] for name in changed}))
    return damaged


async def fetch_texts(database: Database, table: sa.Table, customer: str) -> list[Texts]:
    """Return the texts of the rows of a table: those of a customer, by id, if rows have owners."""
    keys, texts = list(table.primary_key), list_texts(table)
    if not texts or not keys:
        return []
    statement = sa.select(*keys, *(sa.type_coerce(column, sa.Text()).label(f"text {column.name}") for column in texts))
    if (entry := TABLES.get(table.name)) is not None and entry.owner is not None:
        statement = statement.where(select_own(table.name, [customer], ["acme"]))
    if table is plan_versions:
        statement = statement.where(plan_versions.c.version == "standard@1")
    async with database.reading() as connection:
        rows = (await connection.execute(statement.order_by(*keys).limit(50))).all()
    named = [(tuple(row[: len(keys)]), dict(zip(texts, row[len(keys) :], strict=True))) for row in rows]
    filled_rows = [(key, {one.name: value for one, value in values.items() if value}) for key, values in named]
    return [(key, values) for key, values in filled_rows if values]


async def _write(database: Database, table: sa.Table, key: tuple[object, ...], columns: dict[str, Any]) -> None:
    async with database.writing() as connection:
        of_row = sa.and_(*(column == value for column, value in zip(table.primary_key, key, strict=True)))
        values = {
            name: sa.cast(sa.literal(value, sa.LargeBinary()), sa.Text())
            if isinstance(value, bytes)
            else sa.literal(value, sa.Text())
            for name, value in columns.items()
        }
        await connection.execute(sa.update(table).where(of_row).values(values))


def list_texts(table: sa.Table) -> list[sa.Column[Any]]:
    """The columns with a text that identifies nothing."""
    unique = {
        column.name
        for constraint in table.constraints
        if isinstance(constraint, sa.UniqueConstraint)
        for column in constraint.columns
    } | {column.name for index in table.indexes if index.unique for column in index.columns}
    owner = TABLES[table.name].owner if table.name in TABLES else None
    return [
        column
        for column in table.columns
        if not column.primary_key and not column.foreign_keys and column.name not in unique
        if not isinstance(column.type, sa.Integer | sa.BigInteger | sa.LargeBinary | sa.Float)
        if owner is None or column.name != owner.column
    ]
