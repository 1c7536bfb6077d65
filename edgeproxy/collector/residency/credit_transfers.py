"""Credits of a customer who moves: the balance goes from one journal to the other, and each transfer is booked once.

A transfer is promised here, booked there, and then booked here. So the customer can spend it there as soon as edges
switch, and its credits are never missing in between. Credits used here meanwhile become an overdraft and go with the
next transfer. Each transfer has a number within its move, so a repetition is booked only once on either side, and the
accounts `residencies` of both journals add up to zero.
"""

from collections.abc import Sequence
from typing import NamedTuple

import orjson
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection
from typing_extensions import TypedDict

from edgeproxy.collector.accounts import audit
from edgeproxy.collector.accounts.audit import AuditEntry, Caller
from edgeproxy.collector.accounts.change import ChangeRejectedError
from edgeproxy.collector.accounts.rows import CustomerRow
from edgeproxy.collector.billing.credits import consumption
from edgeproxy.collector.billing.jobs.credits import get_credit_meters
from edgeproxy.collector.billing.journal import postings
from edgeproxy.collector.billing.journal.journal import Posting, fetch_balance, open_journal
from edgeproxy.collector.billing.journal.postings import CreditBalance, Grant, TransactionKind
from edgeproxy.collector.database.credit_tables import credit_transactions
from edgeproxy.collector.problems import billing_codes, operation_codes
from edgeproxy.collector.residency import moves
from edgeproxy.collector.residency.moves import MoveRow
from edgeproxy.config.collector.settings import CollectorSettings


class MovedGrant(TypedDict):
    """Credits of a transfer that were added at once."""

    millicredits: int
    """The amount."""
    expires: int | None
    """The time in Unix milliseconds when the unspent rest expires; null: never."""


class Transfer(TypedDict):
    """Credits, or an overdraft, that move from one residency to another."""

    number: int
    """The number of the transfer within its move."""
    currency: str
    """The currency of the credits."""
    grants: list[MovedGrant]
    """The credits; an empty list for an overdraft."""
    overdraft: int
    """The millicredits that the customer owes; 0 for credits."""


class StoredTransfer(NamedTuple):
    """A promised transfer, with the grants that it takes credits from."""

    number: int
    currency: str
    grants: tuple[tuple[str, int, int | None], ...]
    """Id, millicredits and end of each."""
    overdraft: int

    def to_response(self) -> Transfer:
        """Return the transfer as the API does."""
        grants: list[MovedGrant] = [{"millicredits": amount, "expires": expires} for _, amount, expires in self.grants]
        return {"number": self.number, "currency": self.currency, "grants": grants, "overdraft": self.overdraft}


def parse_transfer(stored: str) -> StoredTransfer:
    """Return a stored transfer."""
    number, currency, grants, overdraft = orjson.loads(stored)
    return StoredTransfer(number, currency, tuple(tuple(grant) for grant in grants), overdraft)


def choose_transfer(balance: CreditBalance, pending: int) -> tuple[tuple[tuple[str, int, int | None], ...], int]:
    """Choose the parts of grants or the overdraft, in millicredits, to transfer. Nothing is `((), 0)`.

    `pending` was used here and is not booked yet. It stays, taken from the grants that are spent first.
    """
    if balance.overdraft:
        return (), balance.overdraft
    parts = []
    for grant in postings.spending_order(balance.grants):
        reserved = min(pending, grant.rest)
        pending -= reserved
        if grant.rest > reserved:
            parts.append((grant.id, grant.rest - reserved, grant.expires))
    return tuple(parts), 0


async def fetch_pending(connection: AsyncConnection, customer: CustomerRow, settings: CollectorSettings) -> int:
    """Return the millicredits that a customer has used here and that are not booked yet."""
    meters = None if settings.billing is None else get_credit_meters(settings.billing)
    return 0 if meters is None else await consumption.fetch_pending(connection, meters, customer.name)


async def fetch_left(connection: AsyncConnection, customer: CustomerRow, settings: CollectorSettings) -> int:
    """Return the balance of a customer in millicredits, less the usage that is not booked yet."""
    balance = await fetch_balance(connection, customer.id)
    return balance - await fetch_pending(connection, customer, settings) if balance else 0


async def promise(connection: AsyncConnection, ref: str, settings: CollectorSettings) -> None:
    """Promise the balance of a departing customer, unless a transfer is promised already; raises ChangeRejectedError.

    The caller must hold no lock, because the lock of the journal comes first.
    """
    async with open_journal(connection) as books:
        customer, move = await _lock(connection, ref)
        if move.promised is not None:
            return
        balance = await books.fetch_credit_balance(customer.id)
        pending = await fetch_pending(connection, customer, settings)
        grants, overdraft = choose_transfer(balance, pending)
        if not grants and not overdraft:
            return
        number = 1 + len(await list_booked(connection, move.id))
        promised = StoredTransfer(number, books.get_currency(customer.id), grants, overdraft)
        await moves.update_move(connection, move, promised=orjson.dumps(list(promised)).decode())


async def book_promised(connection: AsyncConnection, caller: Caller, ref: str) -> None:
    """Book the promised transfer of a departing customer, if there is one; raises ChangeRejectedError."""
    async with open_journal(connection) as books:
        customer, move = await _lock(connection, ref)
        if move.promised is None:
            return
        transfer = parse_transfer(move.promised)
        source = f"{move.id}/{transfer.number}"
        balance = await books.fetch_credit_balance(customer.id)
        if transfer.overdraft:
            entries = postings.overdraft_moved_out_entries(balance, source, transfer.overdraft)
            if any(entry.grant == source for entry in entries):
                books.create_grant(customer.id, Grant(source, 0))
        else:
            entries = postings.moved_out_entries(balance, [grant[:2] for grant in transfer.grants])
        details = {"residency": move.residency, "transfer": list(transfer)}
        books.book(Posting(customer.id, "moved_out", source, entries, move.id, details=details))
        await moves.update_move(connection, move, promised=None)
    await _record(connection, caller, customer.id, "credits.move_out", source, transfer.to_response())


async def book_arriving(
    connection: AsyncConnection, caller: Caller, id_: str, transfer: Transfer, settings: CollectorSettings
) -> MoveRow:
    """Book a transfer of an arriving customer once; raises ChangeRejectedError."""
    require_sold(transfer["currency"], settings)
    async with open_journal(connection) as books:
        _, move = await lock_arrival(connection, id_)
        source = f"{id_}/{transfer['number']}"
        if await books.find_transaction("moved_in", source) is not None:
            return move
        if move.state == "withdrawn":
            raise ChangeRejectedError(operation_codes.MOVE_STATE, "the move is withdrawn")
        balance = await books.fetch_credit_balance(move.customer)
        if books.get_currency(move.customer) != transfer["currency"]:
            raise ChangeRejectedError(
                billing_codes.CURRENCY_FIXED, f"the customer is charged in {books.get_currency(move.customer)} here"
            )
        if transfer["overdraft"]:
            entries = postings.overdraft_moved_in_entries(balance, transfer["overdraft"])
        else:
            parts = [(f"{source}/{number}", grant["millicredits"]) for number, grant in enumerate(transfer["grants"])]
            entries = postings.moved_in_entries(balance, parts)
            for (grant_id, _), grant in zip(parts, transfer["grants"], strict=True):
                books.create_grant(move.customer, Grant(grant_id, 0, grant["expires"]))
        details = {"residency": move.residency}
        books.book(Posting(move.customer, "moved_in", source, entries, id_, details=details))
    await _record(connection, caller, move.customer, "credits.move_in", source, transfer)
    return move


def require_sold(currency: str, settings: CollectorSettings) -> None:
    """Raise ChangeRejectedError if no credits of a currency are sold here, because none could be spent."""
    meters = None if settings.billing is None else get_credit_meters(settings.billing)
    if meters is None or currency not in meters.by_currency:
        raise ChangeRejectedError(billing_codes.CURRENCY_NOT_SOLD, f"no credits in {currency} are sold here")


async def list_transfers(connection: AsyncConnection, move: MoveRow) -> list[Transfer]:
    """Return the transfers of an outgoing move in order, including the promised one."""
    transfers = [transfer.to_response() for transfer in await list_booked(connection, move.id)]
    if move.promised is not None:
        transfers.append(parse_transfer(move.promised).to_response())
    return transfers


async def list_booked(connection: AsyncConnection, move: str) -> Sequence[StoredTransfer]:
    """Return the booked transfers of an outgoing move."""
    kind: TransactionKind = "moved_out"
    is_own = (credit_transactions.c.kind == kind) & (credit_transactions.c.original == move)
    details = sa.select(credit_transactions.c.details).where(is_own).order_by(credit_transactions.c.seq)
    rows = await connection.scalars(details)
    return [parse_transfer(orjson.dumps(orjson.loads(row)["transfer"]).decode()) for row in rows]


async def has_arrived(connection: AsyncConnection, move: str) -> bool:
    """Return whether credits of an incoming move are booked."""
    kind: TransactionKind = "moved_in"
    is_own = (credit_transactions.c.kind == kind) & (credit_transactions.c.original == move)
    return (await connection.execute(sa.select(credit_transactions.c.seq).where(is_own).limit(1))).first() is not None


async def lock_arrival(connection: AsyncConnection, id_: str) -> tuple[CustomerRow, MoveRow]:
    """Return the customer and the row of an incoming move, both locked; raises ChangeRejectedError."""
    locked = await moves.lock_by_id(connection, id_)
    if locked is None or locked[1].side != "in":
        raise ChangeRejectedError(operation_codes.MOVE_NOT_FOUND, "there is no such arrival")
    return locked


async def _lock(connection: AsyncConnection, ref: str) -> tuple[CustomerRow, MoveRow]:
    """Return a customer and its outgoing move, both locked; raises ChangeRejectedError."""
    customer, move = await moves.lock_last(connection, ref)
    if move is None or move.side != "out" or move.state in ("begun", "withdrawn"):
        raise ChangeRejectedError(operation_codes.MOVE_STATE, "the customer is not on its way to another residency")
    return customer, move


async def _record(
    connection: AsyncConnection, caller: Caller, customer: str, action: str, source: str, transfer: Transfer
) -> None:
    amount = -transfer["overdraft"] or sum(grant["millicredits"] for grant in transfer["grants"])
    after = {"id": source, "millicredits": amount, "currency": transfer["currency"]}
    await audit.append_entry(connection, caller, AuditEntry(action, customer, None, after, customer))
