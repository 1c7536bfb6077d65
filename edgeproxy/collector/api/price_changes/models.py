"""Price changes and versions of plans as the API shows them."""

from typing import Annotated, Literal, NotRequired

from pydantic import BeforeValidator, JsonValue, WithJsonSchema
from typing_extensions import TypedDict

from edgeproxy.collector.accounts.fields import Text, parse_end
from edgeproxy.collector.accounts.models import Body
from edgeproxy.collector.api.billing.models import PlanResponse
from edgeproxy.collector.api.endpoint import Query
from edgeproxy.collector.api.field_types import A_MOMENT, Cursor, PageLimit
from edgeproxy.config.units import read_text, value_error

PLANS_CHARACTERS_MAX = 64 << 10
"""Characters of the plans of a price change: hundreds of them, and quick to check."""
A_PLANS_TEXT = f"the text of a plans.yaml, of at most {PLANS_CHARACTERS_MAX} characters"
A_DIGEST = "the digest that a dry run has shown"
DIGEST_SCHEMA = {"type": "string", "pattern": "^[0-9a-f]{64}$"}


def read_plans_text(value: object) -> str:
    """Read the text of a plans.yaml."""
    text = read_text(value, A_PLANS_TEXT)
    if not 1 <= len(text) <= PLANS_CHARACTERS_MAX:
        raise value_error(f"has {len(text)} characters", A_PLANS_TEXT)
    return text


def read_second(value: object) -> int:
    """Read a time in whole minutes, as Unix seconds."""
    at = parse_end(value)
    if at % 60_000:
        raise value_error("is within a minute", "a date such as 2027-01-01, or a time in whole minutes")
    return at // 1000


def read_digest(value: object) -> str:
    """Read the digest of a change."""
    text = read_text(value, A_DIGEST)
    if len(text) != 64:
        raise value_error("is no digest", A_DIGEST)
    return text


class PriceChangesQuery(Query):
    """The page of a list."""

    limit: PageLimit = 100
    """The number of price changes on the page, at most."""
    cursor: Cursor | None = None
    """The `next` of the page before; by default the first page."""


class SchedulePriceChangeRequest(Body):
    """New versions of plans, and the start of their sale."""

    plans: Annotated[
        str,
        BeforeValidator(read_plans_text),
        WithJsonSchema({"type": "string", "minLength": 1, "maxLength": PLANS_CHARACTERS_MAX}),
    ]
    """The text of a `plans.yaml` with the new versions. It may also contain versions that are on sale already."""
    at: Annotated[int, BeforeValidator(read_second), WithJsonSchema(A_MOMENT)]
    """The start of their sale. Subscribers move when they next pay for a period."""
    why: Text
    """The reason, for the audit log."""
    digest: Annotated[str, BeforeValidator(read_digest), WithJsonSchema(DIGEST_SCHEMA)] | None = None
    """The `digest` of a dry run. The request is refused if its effect differs from that dry run. By default it is not
    compared.
    """


class WithdrawPriceChangeRequest(Body):
    """The reason for withdrawing a price change."""

    why: Text
    """The reason, for the audit log."""


class ChangedTerm(TypedDict):
    """A term of a plan that differs between two versions."""

    term: str
    """The term, for example `fee` or `meters.api_calls.price`."""
    before: str | None
    """The value before; null if there is none."""
    after: str | None
    """The value after; null if there is none."""


class PriceMoveResponse(TypedDict):
    """A plan whose subscribers move to another version."""

    plan: str
    """The plan, for example `standard`; `standard+acme` is the own price of the customer `acme`."""
    before: str
    """The version on sale before the change."""
    after: str
    """The version on sale after the change."""
    subscribers: int
    """The number of subscribers who will move, as of now."""
    changes: list[ChangedTerm]
    """The terms that differ. Amounts are in the smallest unit of the plans' currency, for example cents. Terms in other
    currencies start with its code, for example `eur.fee`.
    """


class SubscriberEffectResponse(TypedDict):
    """The effect of a price change on a subscriber. Amounts are in the currency's smallest unit, for example cents."""

    customer: str
    """The customer, by name."""
    before_plan: str
    """The version of the subscriber without the change."""
    plan: str
    """The version that the subscriber moves to."""
    period_start: str
    """The start of the rated period: the last completed one."""
    period_end: str
    """The end of that period."""
    before: int | None
    """The monthly cost under the version before; null if the usage is not stored any more."""
    after: int | None
    """The monthly cost under the version after; null if the usage is not stored any more."""
    difference: int
    """The increase in cost; negative for a decrease."""
    currency: str
    """The currency of the amounts (ISO 4217), for example `usd`."""


class CurrencyEffectResponse(TypedDict):
    """The sums of all rated subscribers in a currency."""

    currency: str
    """The currency (ISO 4217), for example `usd`."""
    before: int
    """The sum under the versions before."""
    after: int
    """The sum under the versions after."""
    difference: int
    """The increase in the sum; negative for a decrease."""


class PriceEffectResponse(TypedDict):
    """The effect of a price change on the usage of the last full period. Amounts are monthly, in the smallest unit of a
    currency, for example cents, before discounts and tax.
    """

    subscribers: int
    """The number of subscribers who will move."""
    rated: int
    """The number of rated subscribers. It is smaller if they cannot all be rated within 20 seconds."""
    currencies: list[CurrencyEffectResponse]
    """The sums of the rated subscribers, in each currency. Nothing is converted."""
    customers: list[SubscriberEffectResponse]
    """Each subscriber, by currency, the largest increase first."""


class PriceChangeResponse(TypedDict):
    """A price change."""

    id: str | None
    """The id of the price change; null in a dry run."""
    at: str
    """The start of the sale of the new versions."""
    state: Literal["scheduled", "done", "withdrawn"]
    """`scheduled`, then `done` when its time has come, or `withdrawn`."""
    why: str
    """The reason that an operator gave."""
    created_at: str
    """The time when it was scheduled."""
    created_by: str
    """The operator who scheduled it."""
    decided_at: str | None
    """The time when it was done or withdrawn; null while it is scheduled."""
    moves: list[PriceMoveResponse]
    """The plans whose subscribers move."""
    digest: NotRequired[str]
    """The digest of the dry run's result; only in a dry run."""
    effect: NotRequired[PriceEffectResponse]
    """The effect on subscribers; only in a dry run and while the change is scheduled."""


class PriceChangeList(TypedDict):
    """A page of price changes, newest first."""

    price_changes: list[PriceChangeResponse]
    """The price changes."""
    next: NotRequired[str]
    """The cursor of the next page; missing on the last page."""


class PlanVersionResponse(PlanResponse):
    """A recorded version of a plan."""

    state: Literal["sold", "scheduled", "former"]
    """`sold` to new subscribers; `scheduled` for a price change; `former`: neither."""
    begins_at: str | None
    """The time when a price change starts its sale; null if none does."""
    subscribers: int
    """The number of subscribers on this version now."""
    created_at: str
    """The time when the version was recorded."""
    terms: dict[str, JsonValue]
    """The version in the form of `plans.yaml`, as texts, so that you can make a new version from it. Prices without a
    currency are in `currency`.
    """


class PlanVersionList(TypedDict):
    """All recorded versions of plans."""

    versions: list[PlanVersionResponse]
    """The versions, by plan and number."""


class NextTerms(TypedDict):
    """The terms after a price change."""

    at: str
    """The time when the terms start to apply: when the customer next pays for a period after the change."""
    plan: PlanResponse
    """The version that the customer moves to."""
    changes: list[ChangedTerm]
    """The terms that differ from the present ones. Amounts are in the currency's smallest unit, for example cents."""


class SubscribedPlanResponse(TypedDict):
    """The terms of a customer, and the next terms."""

    plan: PlanResponse
    """The version that the customer has."""
    price_change: NextTerms | None
    """The next price change; null if none is planned."""
