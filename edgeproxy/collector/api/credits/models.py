"""Prepaid credits as the API shows them. Amounts are millicredits: 10,000 are a cent, or another smallest unit."""

from typing import Annotated, Literal, NotRequired
from urllib.parse import urlsplit

from pydantic import BeforeValidator, ConfigDict, WithJsonSchema
from typing_extensions import TypedDict

from edgeproxy.collector.accounts.fields import End, Text
from edgeproxy.collector.accounts.models import Body
from edgeproxy.collector.api.customer_billing import CustomerQuery
from edgeproxy.collector.api.field_types import A_MOMENT, SEQ_MAX, PageLimit, exact, in_query
from edgeproxy.collector.billing.invoices.declines import DeclineReason
from edgeproxy.collector.billing.journal.postings import CENT
from edgeproxy.config.addresses import is_loopback
from edgeproxy.config.collector.currency_units import Currency
from edgeproxy.config.field_types import Name
from edgeproxy.config.units import Whole, format_value, read_text, value_error

MILLICREDITS_MAX = 10**13
"""The largest amount of one gift, withdrawal or purchase: ten million US dollars."""
URL_CHARACTERS_MAX = 2000
A_URL = "https://HOST/PATH, or http:// of this machine"
A_PURCHASE = f"millicredits in whole cents, of which each is {CENT}"
ID = {"type": "string", "pattern": "^[ -~]{1,255}$"}


def read_url(value: object) -> str:
    """Read the URL that a browser returns to."""
    text = read_text(value, A_URL)
    try:
        parts = urlsplit(text)
    except ValueError:
        raise value_error(f"{format_value(text)} is no URL", A_URL) from None
    is_there = parts.hostname and (parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname)))
    if not is_there or len(text) > URL_CHARACTERS_MAX or not text.isascii() or not text.isprintable():
        raise value_error(f"{format_value(text)} is no URL that a browser can be sent to", A_URL)
    return text


def read_purchase(value: object) -> int:
    """Read the amount of a purchase."""
    if type(value) is not int or not CENT <= value <= MILLICREDITS_MAX or value % CENT:
        raise value_error("is no amount that can be bought", A_PURCHASE)
    return value


def read_change(value: object) -> int:
    """Read the amount of an adjustment."""
    if type(value) is not int or not -MILLICREDITS_MAX <= value <= MILLICREDITS_MAX or value == 0:
        raise value_error("is no change", f"a whole number from {-MILLICREDITS_MAX} to {MILLICREDITS_MAX}, and not 0")
    return value


Url = Annotated[
    str,
    BeforeValidator(read_url),
    WithJsonSchema({"type": "string", "pattern": r"^https://[a-z0-9]{1,60}\.example/[A-Za-z0-9/]{0,100}$"}),
]
PurchaseAmount = Annotated[
    int,
    BeforeValidator(read_purchase),
    WithJsonSchema({"type": "integer", "minimum": CENT, "maximum": MILLICREDITS_MAX, "multipleOf": CENT}),
]
AdjustmentAmount = Annotated[
    int,
    BeforeValidator(read_change),
    WithJsonSchema({"type": "integer", "minimum": -MILLICREDITS_MAX, "maximum": MILLICREDITS_MAX, "not": {"const": 0}}),
]
RefundAmount = Annotated[
    int,
    exact(int, f"a whole number from 1 to {MILLICREDITS_MAX}", 1, MILLICREDITS_MAX),
    WithJsonSchema({"type": "integer", "minimum": 1, "maximum": MILLICREDITS_MAX}),
]
Id = Annotated[Text, WithJsonSchema(ID)]


class BalanceQuery(CustomerQuery):
    """The customer and the time of a balance; by default now."""

    at: Annotated[str, WithJsonSchema(A_MOMENT)] | None = None
    """The time of the balance, in UTC; by default now."""


class NumberedQuery(CustomerQuery):
    """The customer whose purchases or consumptions are listed, and the page."""

    limit: PageLimit = 100
    """The number of purchases, consumptions or bookings on the page, at most."""
    cursor: Annotated[int, BeforeValidator(Whole(1, SEQ_MAX)), in_query(1, SEQ_MAX)] | None = None
    """The `next` of the page before; by default the first page."""


class PaidUsageQuery(NumberedQuery):
    """The customer whose usage is listed with its payments, and the page. A booking may have several rows."""

    purchase: Annotated[str, WithJsonSchema(ID)] | None = None
    """The id of a purchase or a gift: only usage that it paid for. By default all usage."""


class CheckoutRequest(Body):
    """Credits to buy."""

    millicredits: PurchaseAmount
    """The credits to buy, in millicredits: whole cents from 5 to 10,000 US dollars; in another currency, from its
    smallest package to its largest."""
    currency: Currency | None = None
    """The currency, for a customer without one. The customer is charged in it from then on. By default the currency of
    the plans, if credits are sold in it.
    """
    success_url: Url
    """The URL of the page that the browser returns to after the payment."""
    cancel_url: Url | None = None
    """The URL of the page that the browser returns to if the customer cancels."""


class TopUpRequest(Body):
    """The amounts of automatic top-up, in millicredits that can be paid."""

    below: PurchaseAmount
    """A purchase begins when fewer credits are available: at most `millicredits`."""
    millicredits: PurchaseAmount
    """The credits of a purchase, in the bounds of `POST /billing/checkout`."""
    month_max: PurchaseAmount
    """The most credits that are bought automatically in a calendar month of UTC: from `millicredits` to 100 times the
    largest purchase."""


class CreateAdjustmentRequest(Body):
    """Credits to give, or to take back if negative. With `consumption`, usage to return."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"customer": "acme", "millicredits": 5, "why": "sorry"}]})

    customer: Name
    """The customer, by name."""
    millicredits: AdjustmentAmount
    """The change in millicredits: a positive number gives credits, a negative one withdraws them."""
    why: Text
    """The reason, for the audit log."""
    expires_at: End | None = None
    """The time when the unspent rest of a gift expires; by default never."""
    consumption: Id | None = None
    """The id of a consumption. The change returns usage of it instead of giving credits."""


class CreateRefundRequest(Body):
    """A purchase to refund."""

    purchase: Id
    """The id of the purchase."""
    millicredits: RefundAmount | None = None
    """The credits to refund, in millicredits that are whole cents; by default all unspent credits."""
    why: Text
    """The reason, for the audit log."""


class CreditGrant(TypedDict):
    """Credits that were added at once, and their unspent rest."""

    id: str
    """The id of the grant."""
    kind: Literal["purchase", "gift", "moved"]
    """The source of the credits: bought, given, or moved from another residency with the customer."""
    granted_at: str
    """The time when the credits were added."""
    granted: int
    """The number of credits added, in millicredits."""
    returned: int
    """The millicredits of the grant that were refunded, are reserved for a refund, or were taken back."""
    used: int
    """The millicredits of the grant that usage has spent."""
    millicredits: int
    """The unspent credits of the grant, in millicredits. Usage that is not booked yet is subtracted."""
    expires_at: str | None
    """The time when the credits expire; null if they do not."""
    refundable: int
    """The millicredits of the grant that can be refunded."""


class CreditBalanceResponse(TypedDict):
    """The credit balance of a customer. Amounts are millicredits: 10,000 are one cent, or another smallest unit."""

    customer: str
    """The customer, by name."""
    balance: int
    """The booked credits, in millicredits."""
    pending: int
    """The credits that were used but are not booked yet, in millicredits."""
    available: int
    """The booked credits minus the pending ones, in millicredits."""
    currency: str
    """The currency of the credits. Before the first credits, the currency of their sale."""
    amount: str
    """The available credits in their currency, as a decimal number."""
    usd: str | None
    """The available credits in US dollars, if that is their currency; else null."""
    grants: list[CreditGrant]
    """The grants that have credits left, in the order of their use; empty for a time in the past."""
    at: str | None
    """The time of the balance; null for the current balance."""


class CreditStatementList(TypedDict):
    """The months that have a statement, newest first."""

    customer: str
    """The customer, by name."""
    statements: list[str]
    """The months with a statement, newest first, such as 2027-03."""


StatementLineKind = Literal[
    "purchase",
    "gift",
    "withdrawal",
    "consumption",
    "usage_refund",
    "refund",
    "refund_failed",
    "chargeback",
    "chargeback_won",
    "expiry",
    "expiry_reversed",
    "moved_out",
    "moved_in",
]


class CreditStatementLine(TypedDict):
    """A line of a statement."""

    at: str | None
    """The time of the booking."""
    kind: StatementLineKind
    """The kind of the booking, such as `purchase` or `consumption`."""
    reference: str
    """The id of the purchase, consumption or adjustment that was booked."""
    meter: str | None
    """The meter of usage; null for other lines."""
    model: str | None
    """The model that was used; null if there is none."""
    millicredits: int
    """The change of the balance, in millicredits."""


class CreditStatement(TypedDict):
    """A month. The opening balance plus the lines is the closing balance. Amounts are millicredits."""

    customer: str
    """The customer, by name."""
    month: str
    """The calendar month in UTC, such as 2027-03."""
    currency: str
    """The currency of the credits."""
    opening: int
    """The balance at the beginning of the month, in millicredits."""
    lines: list[CreditStatementLine]
    """The bookings of the month, oldest first."""
    closing: int
    """The balance at the time `as_of`, in millicredits."""
    pending: int
    """The credits that were used but are not booked yet, in millicredits; 0 if the month is over."""
    is_final: bool
    """True if the month is over."""
    as_of: str
    """The time of the closing balance: the end of the month, or now if the month is not over."""


class PaidUsageRow(TypedDict):
    """A part of an hour's usage, and the purchase that paid for it."""

    hour: str | None
    """The start of the hour of the usage; null for usage that an operator reversed."""
    booked_at: str | None
    """The time when the usage was booked. It is in the month of the statement."""
    consumption: str
    """The id of the consumption. A return of usage names it."""
    purchase: str | None
    """The id of the purchase or gift that paid for it; null for an overdraft, when no credits were left."""
    payment_intent: str | None
    """The payment intent at Stripe of that purchase; null for gifts and overdrafts."""
    millicredits: int
    """The credits spent, in millicredits; negative if they returned, or another grant pays for the usage since."""


class PaidUsageList(TypedDict):
    """A page of a month's usage and its payments, in the order of booking."""

    customer: str
    """The customer, by name."""
    month: str
    """The calendar month in UTC, such as 2027-03."""
    usage: list[PaidUsageRow]
    """The usage of this page."""
    next: NotRequired[int]
    """The `cursor` of the next page; missing on the last one."""


class ConsumedMeter(TypedDict):
    """The part of a consumption by one meter and model."""

    meter: str
    """The meter."""
    model: str | None
    """The model that was used; null if there is none."""
    millicredits: int
    """The credits, in millicredits."""


class CreditConsumption(TypedDict):
    """An hour's usage that credits paid for. Amounts are millicredits."""

    id: str
    """The id of the consumption. A return of usage names it."""
    at: str | None
    """The time of the booking."""
    hour: str | None
    """The start of the hour of the usage."""
    millicredits: int
    """The credits used, in millicredits."""
    reversed: int
    """The millicredits that were returned."""
    meters: list[ConsumedMeter]
    """The parts, by meter and model."""


class CreditConsumptionList(TypedDict):
    """A page of consumptions, latest first."""

    customer: str
    """The customer, by name."""
    consumptions: list[CreditConsumption]
    """The consumptions of this page, latest first."""
    next: NotRequired[int]
    """The `cursor` of the next page; missing on the last one."""


class CreditPurchase(TypedDict):
    """A purchase of credits: the credits bought, the amount paid in cents, and the credits refunded since."""

    id: str
    """The id of the purchase."""
    at: str | None
    """The time of the purchase."""
    millicredits: int
    """The credits bought, in millicredits."""
    cents: int
    """The amount paid, in cents or another smallest unit, with tax."""
    tax: int
    """The tax in that amount, in the same unit."""
    returned: int
    """The millicredits that have been refunded since."""
    has_receipt: bool
    """True if there is a receipt."""
    is_automatic: bool
    """True if automatic top-up bought them."""


class TopUpSettings(TypedDict):
    """Automatic top-up of a customer's credits. Amounts are millicredits."""

    customer: str
    """The customer, by name."""
    currency: str
    """The currency of the credits."""
    state: Literal["on", "off", "declined"]
    """`on`, `off`, or `declined`: off because its payments were declined."""
    below: int | None
    """A purchase begins when fewer credits are available; null if top-up was never turned on."""
    millicredits: int | None
    """The credits of a purchase; null if top-up was never turned on."""
    month_max: int | None
    """The most credits bought in a calendar month of UTC; null if top-up was never turned on."""
    spent: int
    """The credits bought in this month, with the pending purchase."""
    pending: int
    """The credits of the pending purchase; 0 without one."""
    declines: int
    """The number of payments in a row that were declined."""
    decline_reason: DeclineReason | None
    """The reason for the last of them; null if none was declined."""
    retry_at: str | None
    """The time of the next payment after a declined one."""


class CreditPurchaseList(TypedDict):
    """A page of purchases, latest first."""

    customer: str
    """The customer, by name."""
    currency: str
    """The currency of their amounts."""
    purchases: list[CreditPurchase]
    """The purchases of this page, latest first."""
    next: NotRequired[int]
    """The `cursor` of the next page; missing on the last one."""


class StripeSession(TypedDict):
    """A session at Stripe. The browser continues at its page."""

    id: str
    """The id of the session at Stripe."""
    url: str | None
    """The URL of the page at Stripe where the browser continues."""


class CreditAdjustment(TypedDict):
    """An adjustment of credits, and the balance after it."""

    id: str
    """The id of the adjustment."""
    kind: Literal["gift", "withdrawal", "usage_refund"]
    """`gift`, `withdrawal` or `usage_refund`."""
    customer: str
    """The customer, by name."""
    millicredits: int
    """The change of the balance, in millicredits."""
    balance: int
    """The balance after the change, in millicredits."""


class Refund(TypedDict):
    """A refund. It is `held` until the payment service has confirmed or refused it."""

    id: str
    """The id of the refund."""
    customer: str
    """The customer, by name."""
    purchase: str
    """The id of the purchase."""
    cents: int
    """The amount, in cents or another smallest unit."""
    state: Literal["held"]
    """`held` until Stripe has confirmed or refused the refund."""
    currency: str
    """The currency of the purchase."""
