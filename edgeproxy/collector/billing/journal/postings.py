"""The double entry of prepaid credits: the entries of each kind of transaction. Pure.

Amounts are whole millicredits. 1,000 credits are one US dollar, so one dollar is a million millicredits. In other
currencies a millicredit is a ten-thousandth of the smallest unit. A debit is positive, a credit negative, and the
entries of a transaction sum to zero. A customer's credits are in grants: one for each purchase and each gift. Usage
beyond all grants is the overdraft, which the next credits pay first; so a customer never has both.

`cash` is the balance at Stripe, which only Stripe's balance transactions change. `clearing` holds the amounts that our
books expect from Stripe until their balance transactions are booked. An amount in both books therefore leaves nothing
in `clearing`.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, Literal, NamedTuple

from edgeproxy.collector.billing.rating.money import divide_rounded
from edgeproxy.config.collector.currency_units import MILLICREDITS

CENT = MILLICREDITS
"""Millicredits per cent: parts of the smallest unit of any currency."""
CREDIT = 1_000
"""Millicredits per credit."""

Account = Literal[
    "cash",
    "clearing",
    "bank",
    "other",
    "fees",
    "chargebacks",
    "bad_debt",
    "customer_balance",
    "deferred",
    "overdraft",
    "receivable",
    "deferred_fees",
    "revenue",
    "discounts",
    "promotion",
    "cogs",
    "payable",
    "refunds",
    "breakage",
    "residencies",
    "tax",
]
TransactionKind = Literal[
    "purchase",
    "balance_transaction",
    "consumption",
    "cost",
    "gift",
    "withdrawal",
    "usage_refund",
    "usage_moved",
    "refund",
    "refund_paid",
    "refund_failed",
    "chargeback",
    "chargeback_won",
    "expiry",
    "expiry_reversed",
    "moved_out",
    "moved_in",
    "invoice",
    "invoice_paid",
    "invoice_uncollectible",
    "invoice_void",
    "credit_note",
    "credit_note_void",
    "dispute_lost",
    "dispute_won",
    "foreign_balance",
]

ACCOUNTS_BY_KIND: Final[Mapping[TransactionKind, tuple[Account, Account]]] = {
    "purchase": ("clearing", "deferred"),
    "balance_transaction": ("cash", "clearing"),  # Money arrived at Stripe's balance, or left it if negative.
    "consumption": ("deferred", "revenue"),
    "cost": ("cogs", "payable"),  # The cost to us of that consumption.
    "gift": ("promotion", "deferred"),
    "withdrawal": ("deferred", "promotion"),  # The unspent part of a gift is taken back.
    "usage_refund": ("revenue", "deferred"),  # Usage is taken back.
    "usage_moved": ("deferred", "deferred"),  # A grant with returned credits pays instead of a later one.
    "refund": ("deferred", "refunds"),  # A refund begins. Its amount is held from here on, so it cannot be spent.
    "refund_paid": ("refunds", "clearing"),
    "refund_failed": ("refunds", "deferred"),
    # Money was returned without our request: by a dispute, or by a refund made elsewhere.
    "chargeback": ("deferred", "clearing"),
    "chargeback_won": ("clearing", "deferred"),
    "expiry": ("deferred", "breakage"),
    "expiry_reversed": ("breakage", "deferred"),  # Usage before the expiry arrived after it.
    "moved_out": ("deferred", "residencies"),  # Moves to another residency, whose books have it as `moved_in`.
    "moved_in": ("residencies", "deferred"),
    # Invoices of plans (invoices/bookings.py). They do not change a customer's credits.
    "invoice": ("receivable", "deferred_fees"),  # Usage is revenue.
    "invoice_paid": ("clearing", "receivable"),
    "invoice_uncollectible": ("bad_debt", "receivable"),
    "invoice_void": ("deferred_fees", "receivable"),
    "credit_note": ("revenue", "receivable"),  # For a paid invoice: clearing.
    "credit_note_void": ("receivable", "revenue"),
    "dispute_lost": ("revenue", "chargebacks"),  # Chargebacks holds the amounts that a bank withholds until it decides.
    "dispute_won": ("chargebacks", "revenue"),  # After it was lost.
    "foreign_balance": ("other", "customer_balance"),  # A person credited a customer at Stripe.
}
"""The debited and the credited account of each kind.

A debit of deferred revenue goes to the overdraft if no grant has anything left. A credit of deferred revenue goes to
the overdraft first. A purchase and its refunds also have entries for their share of tax.
"""


class JournalEntry(NamedTuple):
    """A line of a transaction."""

    account: Account
    amount: int
    """Millicredits: a debit is positive, a credit negative."""
    grant: str = ""
    """The grant, if the entry is deferred revenue; else empty."""
    meter: str = ""
    model: str = ""


class Grant(NamedTuple):
    """Credits that were added at once, and their unspent rest."""

    id: str
    rest: int
    expires: int | None = None
    """The Unix millisecond when the rest expires, or None if it never does."""
    paid: int = 0
    """The price of a purchase without tax; 0 for a gift."""
    tax: int = 0
    """The tax on the price."""
    returned: int = 0
    """The part of `paid` that was refunded or is held for a refund."""

    @property
    def refundable(self) -> int:
        """The refundable part of the price: unspent and not refunded before."""
        return max(0, min(self.rest, self.paid - self.returned))


class CreditBalance(NamedTuple):
    """A customer's credits: the grants in the order of their creation, or an overdraft."""

    grants: tuple[Grant, ...] = ()
    overdraft: int = 0

    @property
    def balance(self) -> int:
        """The millicredits that can be spent; negative for an overdraft."""
        return sum(grant.rest for grant in self.grants) - self.overdraft

    def grant(self, id_: str) -> Grant | None:
        """Return the grant of this id, or None."""
        return next((grant for grant in self.grants if grant.id == id_), None)


class ConsumptionPart(NamedTuple):
    """A part of a consumption."""

    meter: str
    model: str
    amount: int


class InsufficientCreditsError(ValueError):
    """More was requested than is available. `most` is the available amount in millicredits."""

    def __init__(self, reason: str, most: int) -> None:
        super().__init__(f"{reason}: {most} millicredits at most")
        self.most = most


def purchase_entries(balance: CreditBalance, grant: str, paid: int, tax: int = 0) -> tuple[JournalEntry, ...]:
    """Return the entries of a credit purchase. `paid` is without tax."""
    return _complete_entries("purchase", _add_credits(balance, paid, [(grant, paid)]), -tax)


def gift_entries(balance: CreditBalance, grant: str, amount: int) -> tuple[JournalEntry, ...]:
    """Return the entries of gifted credits."""
    return _complete_entries("gift", _add_credits(balance, amount, [(grant, amount)]))


def plain_entries(kind: TransactionKind, amount: int, meter: str = "", model: str = "") -> tuple[JournalEntry, ...]:
    """Return the entries of a kind that concerns no grant: a fee, a cost, a paid refund."""
    debit, credit = ACCOUNTS_BY_KIND[kind]
    return JournalEntry(debit, amount, "", meter, model), JournalEntry(credit, -amount, "", meter, model)


def consumption_entries(balance: CreditBalance, parts: Sequence[ConsumptionPart]) -> tuple[JournalEntry, ...]:
    """Return the entries of used credits: gifts before purchases, earlier expiry before later."""
    drawn = _draw_credits(balance, sum(part.amount for part in parts), spending_order(balance.grants))
    return (*drawn, *(JournalEntry("revenue", -part.amount, "", part.meter, part.model) for part in parts))


def usage_refund_entries(
    balance: CreditBalance,
    id_: str,
    amount: int,
    consumed: Iterable[JournalEntry],
    refunded: Iterable[JournalEntry],
    now: int,
) -> tuple[JournalEntry, ...]:
    """Return the entries that take usage back: at most its rest. Raises InsufficientCreditsError.

    `consumed` are the entries of the consumption and of its moves to other grants, `refunded` the entries of all
    earlier refunds of it. Credits return to the grants that they came from, the last one first. Credits from no grant,
    or from a grant that has expired by the Unix millisecond `now`, become a gift with the refund's id.
    """
    drawn, revenue = _sum_by_grant(consumed)
    refunded_by_grant, refunded_revenue = _sum_by_grant(refunded)
    if amount > revenue + refunded_revenue:
        raise InsufficientCreditsError("more usage would be taken back than there was", revenue + refunded_revenue)
    grants = []
    # The reverse of the order of use, as if the last units had never been used.
    for grant, part in reversed(drawn.items()):
        remaining_grant = balance.grant(grant)
        if remaining_grant is not None and (remaining_grant.expires is None or remaining_grant.expires > now):
            # At most what this usage took from the grant and has not got back.
            grants.append((grant, max(0, part + refunded_by_grant.get(grant, 0))))
    credited = _add_credits(balance, amount, [*grants, (id_, amount)])
    return (*credited, *_reverse_revenue(consumed, refunded, amount))


def usage_returned_entries(
    parts: Mapping[str, int], amount: int, consumed: Iterable[JournalEntry], refunded: Iterable[JournalEntry]
) -> tuple[JournalEntry, ...]:
    """Return the entries that take usage back and return these parts of it to grants; an empty id is the overdraft."""
    returned = [JournalEntry("deferred" if grant else "overdraft", -part, grant) for grant, part in parts.items()]
    return (*returned, *_reverse_revenue(consumed, refunded, amount))


def usage_moved_entries(payer: str, grant: str, amount: int) -> tuple[JournalEntry, JournalEntry]:
    """Return the entries of usage that a grant pays instead of another one; an empty payer is the overdraft."""
    return (
        JournalEntry("deferred", amount, grant),
        JournalEntry("deferred" if payer else "overdraft", -amount, payer),
    )


def withdrawal_entries(balance: CreditBalance, amount: int) -> tuple[JournalEntry, ...]:
    """Return the entries that take gifts back: at most their unspent rest. Raises InsufficientCreditsError."""
    # Purchases belong to the customer. Only a refund takes them back.
    gifts = [grant for grant in spending_order(balance.grants) if not grant.paid]
    most = sum(grant.rest for grant in gifts)
    if amount > most:
        raise InsufficientCreditsError("more would be taken back than is unspent of gifts", most)
    return _complete_entries("withdrawal", _draw_credits(balance, amount, gifts))


def refund_entries(grant: Grant, amount: int, unit: int = 1) -> tuple[JournalEntry, ...]:
    """Return the entries of a refund of at most the unspent rest of a purchase.

    `amount` is without tax and payable: a multiple of `unit`, in the currency's smallest unit. A refund includes its
    share of tax, also in such units; the refunds of a whole purchase return all of the tax. Raises
    InsufficientCreditsError.
    """
    if amount > grant.refundable:
        raise InsufficientCreditsError("more would be paid back than is unspent of the purchase", grant.refundable)
    tax = _compute_returned_tax(grant, grant.returned + amount, unit) - _compute_returned_tax(
        grant, grant.returned, unit
    )
    return _complete_entries("refund", [JournalEntry("deferred", amount, grant.id)], tax)


def refund_failed_entries(balance: CreditBalance, held: Sequence[JournalEntry]) -> tuple[JournalEntry, ...]:
    """Return the entries that reverse a failed refund. `held` are the entries of that refund."""
    (grant,) = [entry for entry in held if entry.account == "deferred"]
    tax = sum(entry.amount for entry in held if entry.account == "tax")
    return _complete_entries("refund_failed", _add_credits(balance, grant.amount, [(grant.grant, grant.amount)]), -tax)


def chargeback_entries(balance: CreditBalance, grant: Grant, total: int, unit: int = 1) -> tuple[JournalEntry, ...]:
    """Return the entries of money returned without our request.

    It is taken from the rest of the purchase first, then from all other grants. `total` includes its share of tax; a
    payment is a multiple of `unit`.
    """
    net = compute_net(grant, total, unit)
    # The money of this purchase is gone, so its own credits pay first.
    others = [other for other in spending_order(balance.grants) if other.id != grant.id]
    return _complete_entries("chargeback", _draw_credits(balance, net, [grant, *others]), total - net)


def chargeback_won_entries(
    balance: CreditBalance, grant: Grant, total: int, unit: int = 1, *, taken: Iterable[JournalEntry] = (), now: int = 0
) -> tuple[JournalEntry, ...]:
    """Return the entries of charged-back money that was recovered; a payment is a multiple of `unit`.

    Credits return to the grants that the chargeback, whose entries are `taken`, had them from. Credits of no grant, or
    of one that has expired by the Unix millisecond `now`, become credits of the purchase.
    """
    net = compute_net(grant, total, unit)
    drawn, _ = _sum_by_grant(taken)
    valid = {one.id for one in balance.grants if one.expires is None or one.expires > now}
    parts = [(id_, part) for id_, part in reversed(drawn.items()) if id_ in valid]
    return _complete_entries("chargeback_won", _add_credits(balance, net, [*parts, (grant.id, net)]), net - total)


def expiry_entries(grant: Grant) -> tuple[JournalEntry, ...]:
    """Return the entries that void the rest of a grant."""
    return _complete_entries("expiry", [JournalEntry("deferred", grant.rest, grant.id)])


def split_expired(balance: CreditBalance, expired: Mapping[str, int], amount: int) -> list[tuple[str, int]]:
    """Return the parts of `expired` grants that usage of `amount` would have spent before they expired.

    `expired` has the voided credits of each grant that was valid at the time of the usage.
    """
    rests = {grant.id: grant.rest for grant in balance.grants}
    # As if nothing had expired: only then does the order show which grants would have paid.
    valid = [grant._replace(rest=grant.rest + expired.get(grant.id, 0)) for grant in balance.grants]
    parts = []
    for grant in spending_order(valid):
        drawn = min(amount, grant.rest)
        amount -= drawn
        if drawn > rests[grant.id]:
            parts.append((grant.id, drawn - rests[grant.id]))
    return parts


def expiry_reversed_entries(grant: str, amount: int) -> tuple[JournalEntry, ...]:
    """Return the entries that restore expired credits for usage booked next. They pay no overdraft."""
    return _complete_entries("expiry_reversed", [JournalEntry("deferred", -amount, grant)])


def moved_out_entries(balance: CreditBalance, parts: Sequence[tuple[str, int]]) -> tuple[JournalEntry, ...]:
    """Return the entries of credits that move to another residency, with the amount from each grant.

    If a grant has less left by now, the difference comes from other grants, and otherwise becomes overdraft.
    """
    entries: list[JournalEntry] = []
    for id_, amount in parts:
        grant = balance.grant(id_)
        if grant is not None and (drawn := min(amount, grant.rest)):
            entries.append(JournalEntry("deferred", drawn, id_))
    left = apply_entries(balance, entries)
    missing = sum(amount for _, amount in parts) - sum(entry.amount for entry in entries)
    return _complete_entries("moved_out", [*entries, *_draw_credits(left, missing, spending_order(left.grants))])


def overdraft_moved_out_entries(balance: CreditBalance, grant: str, amount: int) -> tuple[JournalEntry, ...]:
    """Return the entries of an overdraft that moves to another residency; a part paid meanwhile becomes a grant."""
    return _complete_entries("moved_out", _add_credits(balance, amount, [(grant, amount)]))


def moved_in_entries(balance: CreditBalance, parts: Sequence[tuple[str, int]]) -> tuple[JournalEntry, ...]:
    """Return the entries of credits that arrive from another residency, with the amount for each new grant."""
    return _complete_entries("moved_in", _add_credits(balance, sum(amount for _, amount in parts), parts))


def overdraft_moved_in_entries(balance: CreditBalance, amount: int) -> tuple[JournalEntry, ...]:
    """Return the entries of an overdraft that arrives from another residency."""
    return _complete_entries("moved_in", _draw_credits(balance, amount, spending_order(balance.grants)))


def compute_net(grant: Grant, total: int, unit: int = 1) -> int:
    """Return the part of a returned amount without tax, as a payable multiple of `unit`."""
    return CENT * divide_rounded(total * grant.paid, CENT * (grant.paid + grant.tax), unit)


def spending_order(grants: Iterable[Grant]) -> list[Grant]:
    """Return the grants in the order of spending: gifts before purchases, earliest expiry first, then by creation."""
    return sorted(grants, key=lambda grant: (bool(grant.paid), grant.expires is None, grant.expires or 0))


def subtract_pending(grants: Iterable[Grant], pending: int) -> dict[str, int]:
    """Return the rest of each grant, by id, after usage that is not booked yet, in the order of spending."""
    rests = {}
    for grant in spending_order(grants):
        used = min(grant.rest, pending)
        rests[grant.id], pending = grant.rest - used, pending - used
    return rests


def apply_entries(balance: CreditBalance, entries: Iterable[JournalEntry]) -> CreditBalance:
    """Return the balance after these entries. A new grant becomes the last one."""
    rests = {grant.id: grant for grant in balance.grants}
    overdraft = balance.overdraft
    for entry in entries:
        if entry.account == "deferred":
            grant = rests.get(entry.grant, Grant(entry.grant, 0))
            rests[entry.grant] = grant._replace(rest=grant.rest - entry.amount)
        elif entry.account == "overdraft":
            overdraft += entry.amount
    return CreditBalance(tuple(rests.values()), overdraft)


def compute_change(entries: Iterable[JournalEntry]) -> int:
    """Return the change of the customer's credits by these entries, in millicredits."""
    return -sum(entry.amount for entry in entries if entry.account in ("deferred", "overdraft"))


def _complete_entries(kind: TransactionKind, parts: Sequence[JournalEntry], tax: int = 0) -> tuple[JournalEntry, ...]:
    """Return `parts`, which are entries of deferred revenue, with the tax and the entry of the other account."""
    debit, credit = ACCOUNTS_BY_KIND[kind]
    other = credit if debit == "deferred" else debit
    entries = (*parts, JournalEntry("tax", tax)) if tax else tuple(parts)
    return (*entries, JournalEntry(other, -sum(entry.amount for entry in entries)))


def _draw_credits(balance: CreditBalance, amount: int, grants: Iterable[Grant]) -> list[JournalEntry]:
    """Return entries that take credits from these grants in order. A missing rest becomes overdraft."""
    parts = []
    for grant in grants:
        drawn = min(amount, grant.rest)
        if drawn:
            parts.append(JournalEntry("deferred", drawn, grant.id))
            amount -= drawn
    return [*parts, JournalEntry("overdraft", amount)] if amount else parts


def _add_credits(balance: CreditBalance, amount: int, grants: Iterable[tuple[str, int]]) -> list[JournalEntry]:
    """Return entries that add credits: to the overdraft first, then to each grant up to its given amount."""
    paid = min(amount, balance.overdraft)
    parts = [JournalEntry("overdraft", -paid)] if paid else []
    amount -= paid
    for grant, most in grants:
        credited = min(amount, most)
        if credited:
            parts.append(JournalEntry("deferred", -credited, grant))
            amount -= credited
    return parts


def _sum_by_grant(entries: Iterable[JournalEntry]) -> tuple[dict[str, int], int]:
    """Return the amount that these entries debit from each grant, and the revenue that they credit."""
    grants: dict[str, int] = {}
    revenue = 0
    for entry in entries:
        if entry.account == "deferred":
            grants[entry.grant] = grants.get(entry.grant, 0) + entry.amount
        elif entry.account == "revenue":
            revenue -= entry.amount
    return grants, revenue


def _reverse_revenue(
    consumed: Iterable[JournalEntry], refunded: Iterable[JournalEntry], amount: int
) -> Iterator[JournalEntry]:
    """Yield entries that take revenue back from the parts of a consumption, in order."""
    left: dict[tuple[str, str], int] = {}
    for entry in (*consumed, *refunded):
        if entry.account == "revenue":
            left[entry.meter, entry.model] = left.get((entry.meter, entry.model), 0) - entry.amount
    for (meter, model), most in left.items():
        part = min(amount, most)
        if part:
            yield JournalEntry("revenue", part, "", meter, model)
            amount -= part


def _compute_returned_tax(grant: Grant, returned: int, unit: int) -> int:
    """Return the tax refunded with this part of the price, as a multiple of `unit` in millicredits."""
    return CENT * divide_rounded(grant.tax * returned, CENT * grant.paid, unit)
