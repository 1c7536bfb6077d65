"""Usage that is taken back from prepaid credits. In the end the credits are as if it had never been used.

The amount returns to the grants that paid it, also to expired ones. A grant with returned credits then pays for other
usage of the hours before its end, which later grants or the overdraft had paid; so their credits return in turn. The
rest of an expired grant expires again at once, so nothing that expired can be spent later.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.billing.credits import credits
from edgeproxy.collector.billing.journal import postings
from edgeproxy.collector.billing.journal.journal import NO_SLICE, Journal, Posting, fetch_entries, fetch_grants
from edgeproxy.collector.billing.journal.postings import CreditBalance, Grant, JournalEntry
from edgeproxy.collector.database.credit_tables import credit_entries, credit_grants, credit_transactions
from edgeproxy.collector.database.schema import DAY

OVERDRAFT = ""
"""The key of an overdraft among the payers of usage."""
REACH_SECONDS = 35 * DAY
"""Returned credits pay for usage that was up to this many seconds earlier than the usage taken back."""
WHY = {"why": "usage was taken back"}


class PaidUse(NamedTuple):
    """A booked consumption, and its payers."""

    source: str
    hour: int
    seq: int
    payers: dict[str, int]
    """The millicredits by grant or OVERDRAFT, without refunded ones."""


class UseMove(NamedTuple):
    """Usage that another grant pays from now on."""

    use: PaidUse
    payer: str
    """The grant or OVERDRAFT that paid it until now."""
    grant: str
    amount: int


class Debts(NamedTuple):
    """The overdraft of a customer now, and the overdrafts that grants paid when they were created."""

    overdraft: int
    settled: Mapping[str, int]
    """The millicredits by grant."""


async def return_usage(books: Journal, customer: str, hour: int, amount: int) -> bool:
    """Take usage of an hour back, at most the rest of its consumptions. Return whether something was taken back."""
    balance = await books.fetch_credit_balance(customer)
    rows = await fetch_grants(books.connection, credit_grants.c.customer == customer)
    numbers = {row.id: row.number for row in rows}
    debts = Debts(balance.overdraft, await _fetch_settled(books.connection, customer))
    uses = attribute_uses(await _fetch_uses(books.connection, customer, hour), balance.grants, numbers, debts)
    freed: dict[str, int] = {}
    refund, left = "", amount
    for use in [use for use in reversed(uses) if use.hour == hour]:
        part = min(left, sum(use.payers.values()))
        if part > 0:
            refund = f"{use.source}/returned/{sum(use.payers.values())}"
            for grant, returned in (await _refund_use(books, customer, use, refund, part)).items():
                freed[grant] = freed.get(grant, 0) + returned
            left -= part
    if left == amount:
        return False
    balance = await books.fetch_credit_balance(customer)
    await _book_moves(books, customer, list_moves(balance, uses, numbers, freed))
    await _settle_overdraft(books, customer, refund)
    # Credits may have returned to grants that have expired since. They must not be spent.
    await credits.expire_grants_of(books, customer, books.slice * 1000)
    return True


def attribute_uses(
    uses: Sequence[PaidUse], grants: Sequence[Grant], numbers: Mapping[str, int], debts: Debts
) -> list[PaidUse]:
    """Return consumptions in the order of their bookings, with the grants that paid their overdraft later.

    `numbers` has the transaction that created each grant. An overdraft is paid in the order of the usage, so the
    current one belongs to the latest usage.
    """
    order = [grant.id for grant in postings.spending_order(grants)]
    left, settled = debts.overdraft, dict(debts.settled)
    attributed = []
    for use in sorted(uses, key=lambda use: use.seq, reverse=True):
        payers = _offset_refunds(use.payers, order)
        debt = payers.get(OVERDRAFT, 0)
        unpaid = min(debt, left)
        left, debt = left - unpaid, debt - unpaid
        for id_ in sorted(settled, key=lambda id_: numbers[id_], reverse=True):
            part = min(debt, settled[id_]) if numbers[id_] > use.seq else 0
            if part:
                payers[id_] = payers.get(id_, 0) + part
                settled[id_], debt = settled[id_] - part, debt - part
        payers[OVERDRAFT] = unpaid + debt
        attributed.append(use._replace(payers=payers))
    return attributed[::-1]


def list_moves(
    balance: CreditBalance, uses: Sequence[PaidUse], numbers: Mapping[str, int], freed: Mapping[str, int]
) -> Iterator[UseMove]:
    """Yield the usage that grants with `freed` credits pay instead of later grants or the overdraft.

    Each grant takes the earliest usage first. Credits that this frees in a later grant are moved in turn.
    """
    available, overdraft = dict(freed), balance.overdraft
    order = postings.spending_order(balance.grants)
    by_hour = sorted(uses, key=lambda use: (use.hour, use.seq))
    for rank, grant in enumerate(order):
        if not available.get(grant.id):
            continue
        later = [OVERDRAFT, *(other.id for other in reversed(order[rank + 1 :]))]
        for use in by_hour:
            if use.seq < numbers[grant.id] or not (grant.expires is None or use.hour * 1000 < grant.expires):
                continue
            for payer in later:
                most = min(use.payers.get(payer, 0), available[grant.id])
                part = min(most, overdraft) if payer == OVERDRAFT else most
                if part <= 0:
                    continue
                yield UseMove(use, payer, grant.id, part)
                use.payers[payer] -= part
                use.payers[grant.id] = use.payers.get(grant.id, 0) + part
                available[grant.id] -= part
                if payer == OVERDRAFT:
                    overdraft -= part
                else:
                    available[payer] = available.get(payer, 0) + part


async def _refund_use(books: Journal, customer: str, use: PaidUse, id_: str, amount: int) -> dict[str, int]:
    """Book the return of a part of a consumption, the last payer first. Return the part of each grant."""
    balance = await books.fetch_credit_balance(customer)
    parts: dict[str, int] = {}
    left = amount
    # In the reverse of the spending order: the rest of the hour looks as if the returned usage had never been.
    for payer in (OVERDRAFT, *(grant.id for grant in reversed(postings.spending_order(balance.grants)))):
        most = balance.overdraft if payer == OVERDRAFT else amount
        part = min(left, use.payers.get(payer, 0), most)
        if part > 0:
            parts[payer] = part
            use.payers[payer] -= part
            left -= part
    if left:  # An overdraft that something else than a grant paid.
        books.create_grant(customer, Grant(id_, 0))
        parts[id_] = left
    consumed = await fetch_entries(books.connection, [use.seq])
    refunded = await fetch_entries(books.connection, await books.list_followers("usage_refund", use.source))
    entries = postings.usage_returned_entries(parts, amount, consumed, refunded)
    books.book(Posting(customer, "usage_refund", id_, entries, use.source, use.hour, WHY))
    return {grant: part for grant, part in parts.items() if grant not in (OVERDRAFT, id_)}


async def _book_moves(books: Journal, customer: str, moves: Iterable[UseMove]) -> None:
    """Book usage that other grants pay from now on: a transaction for each consumption."""
    entries: dict[str, list[JournalEntry]] = {}
    uses: dict[str, PaidUse] = {}
    for move in moves:
        uses[move.use.source] = move.use
        moved = postings.usage_moved_entries(move.payer, move.grant, move.amount)
        entries.setdefault(move.use.source, []).extend(moved)
    for source, booked in entries.items():
        # Usage may move several times, so the source has a number.
        times = len(await books.list_followers("usage_moved", source))
        books.book(Posting(customer, "usage_moved", f"{source}/{times}", tuple(booked), source, uses[source].hour))


async def _settle_overdraft(books: Journal, customer: str, refund: str) -> None:
    """Have grants that have not expired pay an overdraft that no usage has caused: that of a chargeback.

    The purchase that was charged back pays first, as it would have done then.
    """
    balance = await books.fetch_credit_balance(customer)
    left, entries = balance.overdraft, list[JournalEntry]()
    for grant in sorted(postings.spending_order(balance.grants), key=lambda grant: not grant.returned):
        part = min(left, grant.rest)
        if part > 0 and (grant.expires is None or grant.expires > books.slice * 1000):
            entries += postings.usage_moved_entries(OVERDRAFT, grant.id, part)
            left -= part
    if entries:
        books.book(Posting(customer, "usage_moved", f"{refund}/overdraft", tuple(entries), refund))


def _offset_refunds(payers: Mapping[str, int], order: Sequence[str]) -> dict[str, int]:
    """Return payers without negative amounts. A grant has one if it got back what another one had paid."""
    left = -sum(min(amount, 0) for amount in payers.values())
    offset = {payer: max(amount, 0) for payer, amount in payers.items()}
    for payer in (OVERDRAFT, *reversed(order)):
        part = min(left, offset.get(payer, 0))
        if part:
            offset[payer], left = offset[payer] - part, left - part
    return offset


async def _fetch_uses(connection: AsyncConnection, customer: str, hour: int) -> list[PaidUse]:
    """Return the consumptions of a customer that can change if usage of this hour is taken back."""
    columns, entries = credit_transactions.c, credit_entries.c
    is_booked = columns.kind == "consumption"
    source = sa.case((is_booked, columns.source), else_=columns.original)
    statement = (
        sa.select(source, sa.func.max(columns.slice), entries.grant_id)
        .add_columns(
            sa.func.max(sa.case((is_booked, columns.seq))), sa.cast(sa.func.sum(entries.amount), sa.BigInteger)
        )
        .join_from(credit_transactions, credit_entries, entries.seq == columns.seq)
        .where(columns.customer == customer, columns.kind.in_(("consumption", "usage_refund", "usage_moved")))
        .where((columns.slice >= hour - REACH_SECONDS) | (columns.slice == NO_SLICE))
        .where(entries.account.in_(("deferred", "overdraft")))
        .group_by(source, entries.grant_id)
    )
    payers: dict[str, dict[str, int]] = {}
    numbers: dict[str, tuple[int, int]] = {}
    for name, slice_, grant, seq, amount in await connection.execute(statement):
        payers.setdefault(name, {})[grant] = amount
        if seq is not None:  # A refund of earlier usage has no consumption here.
            numbers[name] = (slice_, seq)
    return [PaidUse(name, *number, payers[name]) for name, number in numbers.items()]


async def _fetch_settled(connection: AsyncConnection, customer: str) -> dict[str, int]:
    """Return the overdraft that each grant of a customer paid when it was created."""
    columns, entries = credit_transactions.c, credit_entries.c
    statement = (
        sa.select(columns.source, -entries.amount)
        .join_from(credit_transactions, credit_entries, entries.seq == columns.seq)
        .where(columns.kind.in_(("purchase", "gift")), columns.customer == customer, entries.account == "overdraft")
    )
    return {row[0]: row[1] for row in await connection.execute(statement)}
