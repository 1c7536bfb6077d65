"""The directory lines of customers and flags for edges (config/directory.py), and the outbox of changed ones."""

from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from itertools import groupby
from operator import attrgetter, itemgetter
from typing import Final, Literal, NamedTuple

import orjson
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.accounts.ids import now_ms
from edgeproxy.collector.accounts.key_budgets import parse_budget
from edgeproxy.collector.database.credit_tables import credit_balances
from edgeproxy.collector.database.delivery_tables import rollout, waivers
from edgeproxy.collector.database.quota_tables import entitlements, limit_raises
from edgeproxy.collector.database.schema import customers, directory_outbox, flags, keys
from edgeproxy.collector.database.unreadable_rows import UnreadableRowError, parse_rows, reading_row
from edgeproxy.config.collector.credits import parse_meters
from edgeproxy.config.collector.currency_units import USD
from edgeproxy.config.customers import Customer, DirectoryKey, Flag, LimitRaise, Paused, Subscriber
from edgeproxy.config.directory import FREE, render_flag_line, render_line, render_removal
from edgeproxy.config.limits import Entitlement

DocumentKind = Literal["customer", "flag", "erased"]

PAGE_CUSTOMERS = 500
"""The most customers that one statement fetches."""

CREDITS_MAX = (1 << 53) - 1
"""The most millicredits in a line for edges: nine billion US dollars."""
DELETED = Paused(why="This customer is being deleted")
"""The pause of a customer that is being deleted.

Without a line for the name, edges would serve an issuer's token that names a tier.
"""

COLUMNS = (
    customers.c.name,
    customers.c.tier,
    customers.c.settings,
    customers.c.deleting_since,
    keys.c.sha256,
    keys.c.scopes,
    keys.c.limits,
    keys.c.budget,
    keys.c.start,
    keys.c.expires_at,
    entitlements.c.quotas,
    credit_balances.c.granted,
    customers.c.currency,
    limit_raises.c.factor.label("raise_factor"),
    limit_raises.c.ends_at.label("raise_ends_at"),
)


class DirectoryRow(NamedTuple):
    """A key with the columns of its customer, or a customer without usable keys, in the order of COLUMNS."""

    name: str
    tier: str
    settings: str
    deleting_since: int | None
    sha256: str | None
    scopes: str | None
    limits: str | None
    budget: str | None
    start: str | None
    expires_at: int | None
    quotas: str | None
    granted: int | None
    """The millicredits that the customer was ever granted."""
    currency: str | None
    raise_factor: int | None
    raise_ends_at: int | None


class DirectoryTerms(NamedTuple):
    """The terms that edges receive for all customers."""

    free: bool
    """True if no one is charged now."""
    credits_meters: Mapping[str, str]
    """The meter that spends prepaid credits by currency; empty if none are sold."""
    credits_number: int
    """The number of the credits' counting period.

    It grows when a part of the usage counted by edges was waived, so that edges start a new count.
    """

    @property
    def credits_per(self) -> str:
        """The period of credit quotas."""
        return f"ever@{self.credits_number}"


USAGE_KEY_CHARACTERS = 16
"""Usage and alerts name a key by this many characters of its hash."""
ERASED: Final = "erased"
"""The kind of an outbox row after an erasure.

The next version of the directory is complete, because earlier versions contain the erased customer.
"""


async def enqueue_changes(connection: AsyncConnection, kind: DocumentKind, names: Iterable[str]) -> None:
    """Put these names into the outbox, in the transaction that changes them."""
    rows = [{"kind": kind, "name": name} for name in names]
    if rows:
        await connection.execute(sa.insert(directory_outbox), rows)


async def fetch_line(connection: AsyncConnection, name: str) -> bytes:
    """Return the line of a customer. The line removes a deleted customer, and refuses one that is being deleted.

    Raises UnreadableRowError.
    """
    lines = await fetch_lines(connection, [name])
    if not lines:
        raise UnreadableRowError(f"the row of the customer {name} cannot be read")
    return lines[0]


async def fetch_lines(connection: AsyncConnection, names: Iterable[str]) -> list[bytes]:
    """Return the lines of these customers in order, as `fetch_line` does."""
    ordered = list(names)
    rows = await _fetch_rows(connection, customers.c.name.in_(ordered))
    terms = await fetch_terms(connection)
    own = [(name, list(some)) for name, some in groupby(rows, attrgetter("name"))]
    lines = dict(_format_lines(own, terms))
    there = {name for name, _ in own}
    # If a customer's row cannot be read, edges keep its last line.
    return [lines.get(name) or render_removal(name) for name in ordered if name in lines or name not in there]


async def stream_lines(connection: AsyncConnection, *, for_files: bool = False) -> AsyncIterator[tuple[str, bytes]]:
    """Yield the name and the line of each customer in order of name, with one page in memory at a time.

    `for_files` adds expired keys, which edges need not know, and leaves out customers that are being deleted.
    """
    after = ""
    terms = None if for_files else await fetch_terms(connection)
    while True:
        names = sa.select(customers.c.name).where(customers.c.name > after)
        if for_files:
            names = names.where(customers.c.deleting_since.is_(None))
        page = list(await connection.scalars(names.order_by(customers.c.name).limit(PAGE_CUSTOMERS)))
        if not page:
            return
        between: sa.ColumnElement[bool] = customers.c.name.between(page[0], page[-1])
        if for_files:
            between &= customers.c.deleting_since.is_(None)
        rows = await _fetch_rows(connection, between, expired=for_files)
        own = [(name, list(some)) for name, some in groupby(rows, attrgetter("name"))]
        for name, line in _format_lines(own, terms):
            yield name, line
        after = page[-1]


async def find_customer(connection: AsyncConnection, name: str) -> Customer | None:
    """Return the customer of this name as edge.yaml has it, or None. Raises UnreadableRowError."""
    is_current = (customers.c.name == name) & customers.c.deleting_since.is_(None)
    settings = await connection.scalar(sa.select(customers.c.settings).where(is_current))
    with reading_row(customers.name, name):
        return None if settings is None else Customer.model_validate_json(settings)


async def fetch_flags(connection: AsyncConnection) -> dict[str, Flag]:
    """Return all flags by name."""
    rows = await connection.execute(sa.select(flags.c.name, flags.c.settings).order_by(flags.c.name))
    return dict(parse_rows(flags.name, rows, lambda row: (row[0], Flag.model_validate_json(row[1])), itemgetter(0)))


async def fetch_flag_lines(connection: AsyncConnection, names: Collection[str] | None = None) -> list[bytes]:
    """Return the lines of these flags, by default of all."""
    flags_by_name = await fetch_flags(connection)
    lines = [render_flag_line(name, flag) for name, flag in flags_by_name.items() if names is None or name in names]
    free = (await fetch_terms(connection)).free
    if free if names is None else FREE in names:
        lines.append(render_flag_line(FREE, Flag(percent=100 if free else 0)))
    return lines


async def _fetch_rows(
    connection: AsyncConnection, condition: sa.ColumnElement[bool], *, expired: bool = False
) -> list[DirectoryRow]:
    """Return a row for each usable key of these customers, and one for each customer without any, ordered by name."""
    usable: sa.ColumnElement[bool] = keys.c.revoked_at.is_(None) & customers.c.deleting_since.is_(None)
    if not expired:
        usable &= keys.c.expires_at.is_(None) | (keys.c.expires_at > now_ms())
    joined = (
        customers.outerjoin(keys, (keys.c.customer == customers.c.id) & usable)
        .outerjoin(entitlements, entitlements.c.customer == customers.c.id)
        .outerjoin(credit_balances, credit_balances.c.customer == customers.c.id)
        .outerjoin(limit_raises, limit_raises.c.customer == customers.c.id)
    )
    statement = sa.select(*COLUMNS).select_from(joined).where(condition).order_by(customers.c.name, keys.c.sha256)
    return [DirectoryRow._make(row) for row in await connection.execute(statement)]


async def fetch_terms(connection: AsyncConnection) -> DirectoryTerms:
    """Return the current terms of all customers."""
    waiver_count = sa.select(sa.func.count()).select_from(waivers).where(waivers.c.until.is_not(None)).scalar_subquery()
    row = (
        await connection.execute(sa.select(rollout.c.charging, rollout.c.credits_meter, waiver_count.label("over")))
    ).one()
    meters = {} if row.credits_meter is None else parse_meters(row.credits_meter)
    return DirectoryTerms(not row.charging, meters, row.over)


def compute_entitlements(
    quotas: str | None, granted: int | None, terms: DirectoryTerms | None, currency: str | None = None
) -> tuple[Entitlement, ...]:
    """Return the quotas of a customer: its plan's quotas, given as JSON, and the quota of its granted millicredits."""
    entitlements = () if quotas is None else tuple(map(Entitlement.model_validate, orjson.loads(quotas)))
    meter = None if terms is None else terms.credits_meters.get(currency or USD)
    if granted is None or terms is None or meter is None:
        return entitlements
    included = min(max(0, granted), CREDITS_MAX)
    return (*entitlements, Entitlement(meter=meter, per=terms.credits_per, included=included, cap="hard"))


def _format_lines(
    own: Sequence[tuple[str, list[DirectoryRow]]], terms: DirectoryTerms | None
) -> list[tuple[str, bytes]]:
    """Return the names and lines of customers from their rows. Unreadable ones are set aside."""

    def format_one(one: tuple[str, list[DirectoryRow]]) -> tuple[str, bytes]:
        return one[0], _format_line(*one, terms)

    return parse_rows(customers.name, own, format_one, itemgetter(0))


def _format_line(name: str, rows: list[DirectoryRow], terms: DirectoryTerms | None) -> bytes:
    """Return the line of a customer from its rows; without terms, the line for files."""
    first = rows[0]
    if first.deleting_since is not None:
        return render_line(name, Customer(tier=first.tier, paused=DELETED), ())
    with_keys = [row for row in rows if row.sha256 is not None]
    own_keys = parse_rows(keys.name, with_keys, _parse_key, lambda row: str(row.sha256)[:USAGE_KEY_CHARACTERS])
    customer = Customer.model_validate_json(first.settings)
    if terms is None:
        return render_line(name, customer, [key.model_copy(update={"budget": None}) for key in own_keys])
    if terms.free and customer.paused is not None and customer.paused.status == 402:
        customer = customer.model_copy(update={"paused": None})
    quotas = compute_entitlements(first.quotas, first.granted, terms, first.currency)
    raised = None
    if first.raise_factor is not None and first.raise_ends_at is not None:
        raised = LimitRaise(factor=first.raise_factor, ends_at=first.raise_ends_at / 1000)
    if quotas or raised is not None:
        customer = Subscriber(**dict(customer), entitled=quotas, raised=raised)
    return render_line(name, customer, own_keys)


def _parse_key(row: DirectoryRow) -> DirectoryKey:
    """Return the key of a row in the form that edges receive."""
    budget = parse_budget(row.budget)
    return DirectoryKey.model_validate(
        {
            "sha256": row.sha256,
            "customer": row.name,
            "scopes": None if row.scopes is None else orjson.loads(row.scopes),
            "expires": None if row.expires_at is None else row.expires_at / 1000,
            "limits": () if row.limits is None else orjson.loads(row.limits),
            "budget": None if budget is None or row.start is None else budget.to_directory(row.start),
        }
    )
