"""What the endpoints of credits take and give, as the description shows it and, where it is sent, as it is checked."""

from typing import Annotated, Literal, NotRequired
from urllib.parse import urlsplit

from pydantic import BeforeValidator, ConfigDict, WithJsonSchema
from typing_extensions import TypedDict

from edgeproxy.collector.accounts.models import Body, End, Text
from edgeproxy.collector.api.billing_models import WhoseQuery
from edgeproxy.collector.api.endpoint import Query
from edgeproxy.collector.api.ledger_models import A_MOMENT, SEQ_MAX, PageLimit, exact, in_query
from edgeproxy.collector.billing.journal.postings import CENT
from edgeproxy.config.addresses import is_loopback
from edgeproxy.config.field_types import Name
from edgeproxy.config.units import Whole, format_value, read_text, value_error

MILLICREDITS_MAX = 10**13
"""The most that is given, taken back or bought at once: ten million US dollars."""
PURCHASE_MIN, PURCHASE_MAX = 500 * CENT, 1_000_000 * CENT
"""What may be bought at once: 5 to 10,000 US dollars."""
URL_CHARACTERS_MAX = 2000
A_URL = "https://HOST/PATH, or http:// of this machine"
A_PURCHASE = f"whole cents from {PURCHASE_MIN} to {PURCHASE_MAX} millicredits, of which {CENT} are a cent"
ID = {"type": "string", "pattern": "^[ -~]{1,255}$"}


def read_url(value: object) -> str:
    """Read where a browser is sent back to."""
    said = read_text(value, A_URL)
    try:
        parts = urlsplit(said)
    except ValueError:
        raise value_error(f"{format_value(said)} is no URL", A_URL) from None
    is_there = parts.hostname and (parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname)))
    if not is_there or len(said) > URL_CHARACTERS_MAX or not said.isascii() or not said.isprintable():
        raise value_error(f"{format_value(said)} is no URL that a browser can be sent to", A_URL)
    return said


def read_purchase(value: object) -> int:
    """Read how much is bought."""
    if type(value) is not int or not PURCHASE_MIN <= value <= PURCHASE_MAX or value % CENT:
        raise value_error("is no amount that can be bought", A_PURCHASE)
    return value


def read_change(value: object) -> int:
    """Read by how much credits are changed."""
    if type(value) is not int or not -MILLICREDITS_MAX <= value <= MILLICREDITS_MAX or value == 0:
        raise value_error("is no change", f"a whole number from {-MILLICREDITS_MAX} to {MILLICREDITS_MAX}, and not 0")
    return value


Url = Annotated[
    str,
    BeforeValidator(read_url),
    WithJsonSchema({"type": "string", "pattern": r"^https://[a-z0-9]{1,60}\.example/[A-Za-z0-9/]{0,100}$"}),
]
Bought = Annotated[
    int,
    BeforeValidator(read_purchase),
    WithJsonSchema({"type": "integer", "minimum": PURCHASE_MIN, "maximum": PURCHASE_MAX, "multipleOf": CENT}),
]
Change = Annotated[
    int,
    BeforeValidator(read_change),
    WithJsonSchema({"type": "integer", "minimum": -MILLICREDITS_MAX, "maximum": MILLICREDITS_MAX, "not": {"const": 0}}),
]
Back = Annotated[
    int,
    exact(int, f"a whole number from 1 to {MILLICREDITS_MAX}", 1, MILLICREDITS_MAX),
    WithJsonSchema({"type": "integer", "minimum": 1, "maximum": MILLICREDITS_MAX}),
]
Id = Annotated[Text, WithJsonSchema(ID)]


class BalanceQuery(WhoseQuery):
    """Whose balance, and of which moment; by default of now."""

    at: Annotated[str, WithJsonSchema(A_MOMENT)] | None = None


class PurchasesQuery(WhoseQuery):
    """Which purchases."""

    limit: PageLimit = 100
    cursor: Annotated[int, BeforeValidator(Whole(1, SEQ_MAX)), in_query(1, SEQ_MAX)] | None = None
    """The `next` of the page before."""


class Checkout(Body):
    """Credits that somebody wants to buy."""

    millicredits: Bought
    success_url: Url
    """Where the browser is sent once it is paid."""
    cancel_url: Url | None = None


class Portal(Body):
    """Where the browser is sent back to from the customer portal."""

    return_url: Url


class CreateAdjustmentRequest(Body):
    """Credits that are given, or below zero taken back; with `consumption`, usage that is taken back."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"customer": "acme", "millicredits": 5, "why": "sorry"}]})

    customer: Name
    millicredits: Change
    why: Text
    expires_at: End | None = None
    """Of a gift: when what is left of it is void."""
    consumption: Id | None = None
    """The id of a consumption."""


class CreateRefundRequest(Body):
    """Money that is to go back."""

    purchase: Id
    """The id of the purchase."""
    millicredits: Back | None = None
    """How much of it: whole cents, by default all that is unspent."""
    why: Text


class AccountingQuery(Query):
    """In which form."""

    format: Literal["csv", "quickbooks", "xero"] | None = None


class CreditGrant(TypedDict):
    """Credits that came at once, and what is left of them."""

    id: str
    millicredits: int
    expires_at: str | None
    refundable: int


class CreditBalanceResponse(TypedDict):
    """What a customer has. Amounts are millicredits, of which 1,000,000 are one US dollar."""

    customer: str
    balance: int
    """What is booked."""
    pending: int
    """What was used and is not booked yet."""
    available: int
    usd: str
    """What is available, in US dollars."""
    grants: list[CreditGrant]
    at: str | None


class CreditStatementList(TypedDict):
    """The months of which there are statements, newest first."""

    customer: str
    statements: list[str]


class CreditStatementLine(TypedDict):
    """A line of a statement."""

    at: str | None
    kind: str
    reference: str
    meter: str | None
    model: str | None
    millicredits: int


class CreditStatement(TypedDict):
    """A month: opening and lines come to the closing. Amounts are millicredits."""

    customer: str
    month: str
    opening: int
    lines: list[CreditStatementLine]
    closing: int


class CreditPurchase(TypedDict):
    """Credits that were bought: how many, what was paid in cents, and how many have gone back since."""

    id: str
    at: str | None
    millicredits: int
    cents: int
    tax: int
    returned: int
    has_receipt: bool


class CreditPurchaseList(TypedDict):
    """A page of purchases, the last first."""

    customer: str
    purchases: list[CreditPurchase]
    next: NotRequired[int]


class StripeSession(TypedDict):
    """Where the browser is to be sent."""

    id: str
    url: str | None


class CreditAdjustment(TypedDict):
    """What was booked, and what there is now."""

    id: str
    kind: str
    customer: str
    millicredits: int
    balance: int


class Refund(TypedDict):
    """A refund: `held` until the payment service has told what became of it."""

    id: str
    customer: str
    purchase: str
    cents: int
    state: str


class AccountMovement(TypedDict):
    """What one kind of happening has moved on an account, in millicredits: a debit above zero, a credit below."""

    account: str
    kind: str
    customer: str
    millicredits: int


class AccountingDay(TypedDict):
    """A day of the books: the exact movements, and whole cents by account."""

    date: str
    movements: list[AccountMovement]
    cents: dict[str, int]
