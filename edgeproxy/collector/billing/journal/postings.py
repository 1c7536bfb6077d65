"""The double entry of prepaid credits: what is booked when something happens. Pure.

Amounts are whole millicredits: 1,000 credits are one US dollar, so a million millicredits are. A debit is above zero, a
credit below, and the entries of a transaction sum to zero. What a customer has left is in grants: one for each purchase
and each gift. What was used beyond all of them is the overdraft, which whatever comes next pays first; so a customer
never has both.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, Literal, NamedTuple

from edgeproxy.collector.billing.rating.money import rounded

CENT = 10_000
"""Millicredits of a cent."""
CREDIT = 1_000
"""Millicredits of a credit."""

Account = Literal[
    "cash",
    "fees",
    "deferred",
    "overdraft",
    "receivable",
    "deferred_fees",
    "revenue",
    "promotion",
    "cogs",
    "payable",
    "refunds",
    "breakage",
    "tax",
]
Kind = Literal[
    "purchase",
    "fee",
    "consumption",
    "cost",
    "gift",
    "withdrawal",
    "usage_refund",
    "refund",
    "refund_paid",
    "refund_failed",
    "chargeback",
    "chargeback_won",
    "expiry",
    "invoice",
    "invoice_paid",
    "invoice_void",
    "credit_note",
]

TABLE: Final[Mapping[Kind, tuple[Account, Account]]] = {
    # What happens: the account that is debited, the account that is credited.
    "purchase": ("cash", "deferred"),
    "fee": ("fees", "cash"),  # What the payment service keeps of a purchase, or takes for a dispute.
    "consumption": ("deferred", "revenue"),
    "cost": ("cogs", "payable"),  # What that consumption costs us.
    "gift": ("promotion", "deferred"),
    "withdrawal": ("deferred", "promotion"),  # A gift is taken back, as far as it is unspent.
    "usage_refund": ("revenue", "deferred"),  # Usage is taken back.
    "refund": ("deferred", "refunds"),  # Money is to go back: held from here on, so that nobody can spend it.
    "refund_paid": ("refunds", "cash"),
    "refund_failed": ("refunds", "deferred"),
    "chargeback": ("deferred", "cash"),  # Money has gone back without us: a dispute, or a refund made elsewhere.
    "chargeback_won": ("cash", "deferred"),
    "expiry": ("deferred", "breakage"),
    # Invoices of plans (invoice_bookings.py), which are no part of what a customer has in credits.
    "invoice": ("receivable", "deferred_fees"),  # Usage is revenue.
    "invoice_paid": ("cash", "receivable"),
    "invoice_void": ("deferred_fees", "receivable"),
    "credit_note": ("revenue", "receivable"),  # Of an invoice that is paid: cash.
}
"""All that can happen. Where deferred revenue is debited and no grant has any left, the overdraft is; where it is
credited, the overdraft is first. Beside it, a purchase and what becomes of its money have their share of tax.
"""


class Entry(NamedTuple):
    """A line of a transaction."""

    account: Account
    amount: int
    """Millicredits: a debit above zero, a credit below."""
    grant: str = ""
    """Of deferred revenue: the grant that it is of."""
    meter: str = ""
    model: str = ""


class Grant(NamedTuple):
    """Credits that came at once, and what is left of them."""

    id: str
    rest: int
    expires: int | None = None
    """The Unix millisecond at which what is left is void; None: never."""
    paid: int = 0
    """What was paid for it, without tax; 0 of a gift."""
    tax: int = 0
    """The tax on that."""
    returned: int = 0
    """How much of `paid` has gone back, or is held to."""

    @property
    def refundable(self) -> int:
        """How much of the money can go back: what is unspent, and was not returned before."""
        return max(0, min(self.rest, self.paid - self.returned))


class Purse(NamedTuple):
    """What a customer has: the grants, in the order in which they came, or an overdraft."""

    grants: tuple[Grant, ...] = ()
    overdraft: int = 0

    @property
    def balance(self) -> int:
        """What there is to spend; below zero where too much was spent."""
        return sum(grant.rest for grant in self.grants) - self.overdraft

    def grant(self, id_: str) -> Grant | None:
        """The grant of this id; None where there is none."""
        return next((grant for grant in self.grants if grant.id == id_), None)


class Used(NamedTuple):
    """A part of a consumption."""

    meter: str
    model: str
    amount: int


class Exceeds(ValueError):
    """More was asked for than there is: `most` is how much there is, in millicredits."""

    def __init__(self, what: str, most: int) -> None:
        super().__init__(f"{what}: {most} millicredits at most")
        self.most = most


def purchase(purse: Purse, grant: str, paid: int, tax: int = 0) -> tuple[Entry, ...]:
    """Book that credits were paid for: `paid` without the tax."""
    return _against("purchase", _put(purse, paid, [(grant, paid)]), -tax)


def gift(purse: Purse, grant: str, amount: int) -> tuple[Entry, ...]:
    """Book that credits were given away."""
    return _against("gift", _put(purse, amount, [(grant, amount)]))


def plain(kind: Kind, amount: int, meter: str = "", model: str = "") -> tuple[Entry, ...]:
    """Book what no grant has a part in: a fee, a cost, a refund that was paid."""
    debit, credit = TABLE[kind]
    return Entry(debit, amount, "", meter, model), Entry(credit, -amount, "", meter, model)


def consumption(purse: Purse, used: Sequence[Used]) -> tuple[Entry, ...]:
    """Book that credits were used: gifts before what was paid for, what expires first before what does later."""
    parts = _drawn(purse, sum(one.amount for one in used), spending_order(purse.grants))
    return (*parts, *(Entry("revenue", -one.amount, "", one.meter, one.model) for one in used))


def usage_refund(
    purse: Purse, id_: str, amount: int, consumed: Iterable[Entry], refunded: Iterable[Entry], now: int
) -> tuple[Entry, ...]:
    """Book that usage is taken back: at most what is left of it. Raises Exceeds.

    `consumed` are the entries of the consumption, `refunded` those of all refunds of it before. Credits go back to the
    grants that they came from, the last one first. What came from none, or from one that has expired by the Unix
    millisecond `now`, is a gift with the id of the refund.
    """
    drawn, revenue = _drawn_by_grant(consumed)
    back, taken_back = _drawn_by_grant(refunded)
    if amount > revenue + taken_back:
        raise Exceeds("more usage would be taken back than there was", revenue + taken_back)
    into = []
    for grant, part in reversed(drawn.items()):
        known = purse.grant(grant)
        if known is not None and (known.expires is None or known.expires > now):
            into.append((grant, part + back.get(grant, 0)))
    parts = _put(purse, amount, [*into, (id_, amount)])
    return (*parts, *_revenue_back(consumed, refunded, amount))


def withdrawal(purse: Purse, amount: int) -> tuple[Entry, ...]:
    """Book that gifts are taken back: at most what is unspent of them. Raises Exceeds."""
    gifts = [grant for grant in spending_order(purse.grants) if not grant.paid]
    most = sum(grant.rest for grant in gifts)
    if amount > most:
        raise Exceeds("more would be taken back than is unspent of gifts", most)
    return _against("withdrawal", _drawn(purse, amount, gifts))


def refund(grant: Grant, amount: int) -> tuple[Entry, ...]:
    """Book that money is to go back: at most what is unspent of what was paid for. Raises Exceeds.

    `amount` is without tax and whole cents; the tax on it goes back too, so that with all of it all of the tax does.
    """
    if amount > grant.refundable:
        raise Exceeds("more would be paid back than is unspent of the purchase", grant.refundable)
    tax = _tax_of(grant, grant.returned + amount) - _tax_of(grant, grant.returned)
    return _against("refund", [Entry("deferred", amount, grant.id)], tax)


def refund_failed(purse: Purse, held: Sequence[Entry]) -> tuple[Entry, ...]:
    """Book that the money of a refund, whose entries are `held`, has not gone back."""
    (grant,) = [entry for entry in held if entry.account == "deferred"]
    tax = sum(entry.amount for entry in held if entry.account == "tax")
    return _against("refund_failed", _put(purse, grant.amount, [(grant.grant, grant.amount)]), -tax)


def chargeback(purse: Purse, grant: Grant, total: int) -> tuple[Entry, ...]:
    """Book that money has gone back without us: what the purchase has left first, then whatever there is.

    `total` is with its share of the tax.
    """
    net = net_of(grant, total)
    others = [one for one in spending_order(purse.grants) if one.id != grant.id]
    return _against("chargeback", _drawn(purse, net, [grant, *others]), total - net)


def chargeback_won(purse: Purse, grant: Grant, total: int) -> tuple[Entry, ...]:
    """Book that this money has come again."""
    net = net_of(grant, total)
    return _against("chargeback_won", _put(purse, net, [(grant.id, net)]), net - total)


def expiry(grant: Grant) -> tuple[Entry, ...]:
    """Book that what is left of a grant is void."""
    return _against("expiry", [Entry("deferred", grant.rest, grant.id)])


def net_of(grant: Grant, total: int) -> int:
    """How much of an amount that has gone back is without tax: whole cents where the amount is."""
    return CENT * rounded(total * grant.paid, CENT * (grant.paid + grant.tax))


def spending_order(grants: Iterable[Grant]) -> list[Grant]:
    """In which order grants are spent: gifts before paid, earliest expiry first, then as they came."""
    return sorted(grants, key=lambda one: (bool(one.paid), one.expires is None, one.expires or 0))


def applied(purse: Purse, entries: Iterable[Entry]) -> Purse:
    """Return what a customer has after these entries; a grant that was not there is the last one."""
    rests = {grant.id: grant for grant in purse.grants}
    overdraft = purse.overdraft
    for entry in entries:
        if entry.account == "deferred":
            grant = rests.get(entry.grant, Grant(entry.grant, 0))
            rests[entry.grant] = grant._replace(rest=grant.rest - entry.amount)
        elif entry.account == "overdraft":
            overdraft += entry.amount
    return Purse(tuple(rests.values()), overdraft)


def change(entries: Iterable[Entry]) -> int:
    """By how much these entries change what the customer has to spend."""
    return -sum(entry.amount for entry in entries if entry.account in ("deferred", "overdraft"))


def _against(kind: Kind, parts: Sequence[Entry], tax: int = 0) -> tuple[Entry, ...]:
    """What happens, where `parts` stand for deferred revenue: the other account has the rest of it, the tax too."""
    debit, credit = TABLE[kind]
    other = credit if debit == "deferred" else debit
    entries = (*parts, Entry("tax", tax)) if tax else tuple(parts)
    return (*entries, Entry(other, -sum(entry.amount for entry in entries)))


def _drawn(purse: Purse, amount: int, grants: Iterable[Grant]) -> list[Entry]:
    """Take credits from these grants, one after another, and what is missing as overdraft."""
    parts = []
    for grant in grants:
        taken = min(amount, grant.rest)
        if taken:
            parts.append(Entry("deferred", taken, grant.id))
            amount -= taken
    return [*parts, Entry("overdraft", amount)] if amount else parts


def _put(purse: Purse, amount: int, into: Iterable[tuple[str, int]]) -> list[Entry]:
    """Give credits: to the overdraft first, then to these grants, to each so many at most."""
    paid = min(amount, purse.overdraft)
    parts = [Entry("overdraft", -paid)] if paid else []
    amount -= paid
    for grant, most in into:
        given = min(amount, most)
        if given:
            parts.append(Entry("deferred", -given, grant))
            amount -= given
    return parts


def _drawn_by_grant(entries: Iterable[Entry]) -> tuple[dict[str, int], int]:
    """How much of each grant these entries debit, and how much revenue they credit."""
    grants: dict[str, int] = {}
    revenue = 0
    for entry in entries:
        if entry.account == "deferred":
            grants[entry.grant] = grants.get(entry.grant, 0) + entry.amount
        elif entry.account == "revenue":
            revenue -= entry.amount
    return grants, revenue


def _revenue_back(consumed: Iterable[Entry], refunded: Iterable[Entry], amount: int) -> Iterator[Entry]:
    """Take revenue back from the parts of a consumption, in their order."""
    left: dict[tuple[str, str], int] = {}
    for entry in (*consumed, *refunded):
        if entry.account == "revenue":
            left[entry.meter, entry.model] = left.get((entry.meter, entry.model), 0) - entry.amount
    for (meter, model), most in left.items():
        part = min(amount, most)
        if part:
            yield Entry("revenue", part, "", meter, model)
            amount -= part


def _tax_of(grant: Grant, returned: int) -> int:
    """The tax that has gone back with so much of what was paid: whole cents."""
    return CENT * rounded(grant.tax * returned, CENT * grant.paid)
