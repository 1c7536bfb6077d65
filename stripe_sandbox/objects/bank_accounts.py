"""Stripe's test bank accounts in the United States, by token: each behaves as its name says. Pure."""

from typing import NamedTuple

from stripe_sandbox.refusal import ApiError

TYPE = "us_bank_account"
CURRENCY = "usd"
DEBIT_SECONDS = 4 * 86400
"""Seconds until a bank says what became of a debit."""


class BankAccount(NamedTuple):
    """The behaviour of a bank account when it is debited."""

    declined: str | None = None
    """Code with which its bank sends a debit back."""
    settles: bool = True
    """Whether its bank ever says what became of a debit."""


BANK_ACCOUNTS = {
    "pm_usBankAccount_success": BankAccount(),
    "pm_usBankAccount_accountClosed": BankAccount("account_closed"),
    "pm_usBankAccount_noAccount": BankAccount("no_account"),
    "pm_usBankAccount_insufficientFunds": BankAccount("insufficient_funds"),
    "pm_usBankAccount_debitNotAuthorized": BankAccount("debit_not_authorized"),
    "pm_usBankAccount_processing": BankAccount(settles=False),
}
"""Stripe's test bank accounts that the sandbox knows, by the tokens that stand for ways to pay. They are verified."""
MESSAGES = {
    "account_closed": "The customer's bank account has been closed.",
    "no_account": "The customer's bank account could not be located.",
    "insufficient_funds": "The customer's account has insufficient funds to cover this payment.",
    "debit_not_authorized": "The customer has notified their bank that this payment was unauthorized.",
}


def build_return(why: str) -> ApiError:
    """Build the error of a debit that a bank has sent back."""
    return ApiError(402, MESSAGES[why], code=why, decline_code=why)
