"""The account against which a balance transaction is booked, and its entries. Pure."""

from collections.abc import Mapping
from typing import Final, Literal, NamedTuple

from edgeproxy.collector.billing.journal.postings import CENT, Account, JournalEntry
from edgeproxy.config.collector.currency_units import USD

SubjectKind = Literal["purchase", "invoice"]


class PaymentSubject(NamedTuple):
    """The subject of a payment: a purchase of credits, or an invoice of ours."""

    kind: SubjectKind
    id: str
    """The grant of a purchase, or its payment intent before it is booked; our id of an invoice."""
    customer: str
    """The customer, by id; empty where the purchase is not booked."""
    is_void: bool = False
    """Whether it is an invoice of which nothing stands: its payment is owed to the customer."""


class BalanceTransaction(NamedTuple):
    """A movement of the balance at Stripe, in smallest units such as cents."""

    id: str
    type: str
    """Stripe's type, such as `charge` or `payout`."""
    source: str
    """The id of the object that it is about; empty where there is none."""
    source_type: str
    """The type of that object, such as `refund`."""
    created: int
    """Unix seconds."""
    amount: int
    fee: int
    currency: str = USD

    @property
    def net(self) -> int:
        """The change of the balance."""
        return self.amount - self.fee


BANK_TYPES: Final = ("payout", "topup", "transfer")
"""The beginnings of the types that move money between Stripe and the bank."""
FEE_TYPES: Final = ("stripe_fee", "stripe_fx_fee", "tax_fee", "network_cost")
"""The types of what Stripe charges beside payments."""
REFUND, DISPUTE = "refund", "dispute"
INVOICE_ACCOUNTS: Final[Mapping[str, Account]] = {REFUND: "revenue", DISPUTE: "chargebacks"}
"""The account of what goes back of a paid invoice without a credit note, by the type of the source."""


def choose_account(moved: BalanceTransaction, subject: PaymentSubject | None, *, is_credit_noted: bool) -> Account:
    """Return the account against which a balance transaction is booked.

    `subject` is None where it is nothing of ours. Purchases and credit notes are in clearing already, whatever becomes
    of them; what else goes back of an invoice is known by its balance transaction alone. A payment of a void invoice
    stays in clearing until it goes back.
    """
    if moved.type.startswith(BANK_TYPES):
        return "bank"
    if moved.type in FEE_TYPES:
        return "fees"
    if subject is None:
        return "other"
    if subject.kind == "invoice" and not (is_credit_noted or subject.is_void):
        return INVOICE_ACCOUNTS.get(moved.source_type, "clearing")
    return "clearing"


def balance_entries(moved: BalanceTransaction, account: Account) -> tuple[JournalEntry, ...]:
    """Return the entries of a balance transaction. The fees of what is not ours are not ours either."""
    fee = 0 if account == "other" else moved.fee
    booked = (
        JournalEntry("cash", CENT * moved.net),
        JournalEntry("fees", CENT * fee),
        JournalEntry(account, -CENT * (moved.net + fee)),
    )
    return tuple(entry for entry in booked if entry.amount)
