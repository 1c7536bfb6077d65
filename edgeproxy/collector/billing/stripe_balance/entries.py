"""The contra account and the entries of a balance transaction. Pure."""

from collections.abc import Mapping
from typing import Final, Literal, NamedTuple

from edgeproxy.collector.billing.journal.postings import CENT, Account, JournalEntry
from edgeproxy.config.collector.currency_units import USD

SubjectKind = Literal["purchase", "invoice"]


class PaymentSubject(NamedTuple):
    """The subject of a payment: a credit purchase, or an invoice of ours."""

    kind: SubjectKind
    id: str
    """The grant of a purchase, or its payment intent before it is booked; or our invoice id."""
    customer: str
    """The customer's id; empty if the purchase is not booked."""
    is_void: bool = False
    """True for an invoice without an amount due. Its payment is owed to the customer."""


class BalanceTransaction(NamedTuple):
    """A movement of the balance at Stripe, in smallest units, for example cents."""

    id: str
    type: str
    """Stripe's type, for example `charge` or `payout`."""
    source: str
    """The id of the object that caused it, or empty."""
    source_type: str
    """The type of that object, for example `refund`."""
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
"""The prefixes of the types that move money between Stripe and the bank."""
FEE_TYPES: Final = ("stripe_fee", "stripe_fx_fee", "tax_fee", "network_cost")
"""The types of Stripe's charges that are not part of payments."""
REFUND, DISPUTE = "refund", "dispute"
INVOICE_ACCOUNTS: Final[Mapping[str, Account]] = {REFUND: "revenue", DISPUTE: "chargebacks"}
"""The account for money returned from a paid invoice without a credit note, by the type of the source."""


def choose_account(moved: BalanceTransaction, subject: PaymentSubject | None, *, is_credit_noted: bool) -> Account:
    """Return the contra account of a balance transaction.

    `subject` is None if the transaction is not ours. Purchases and credit notes are always in clearing. Any other
    refund of an invoice is known only by its balance transaction. A payment of a void invoice stays in clearing until
    it is returned.
    """
    # Failures and cancellations have types such as `payout_failure`, and go the other way.
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
    """Return the entries of a balance transaction. The fees of foreign transactions are not ours either."""
    fee = 0 if account == "other" else moved.fee
    booked = (
        JournalEntry("cash", CENT * moved.net),
        JournalEntry("fees", CENT * fee),
        JournalEntry(account, -CENT * (moved.net + fee)),
    )
    # An entry of zero says nothing. Payouts, for example, have no fee.
    return tuple(entry for entry in booked if entry.amount)
