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
    """New versions of plans, and the time from which they are sold."""

    plans: Annotated[
        str,
        BeforeValidator(read_plans_text),
        WithJsonSchema({"type": "string", "minLength": 1, "maxLength": PLANS_CHARACTERS_MAX}),
    ]
    """The text of a `plans.yaml` with the new versions; versions that are sold already may stand beside them."""
    at: Annotated[int, BeforeValidator(read_second), WithJsonSchema(A_MOMENT)]
    """The time from which they are sold; subscribers move when they next pay for a period."""
    why: Text
    """The reason, for the audit log."""
    digest: Annotated[str, BeforeValidator(read_digest), WithJsonSchema(DIGEST_SCHEMA)] | None = None
    """The `digest` of a dry run: anything else than what that has shown is refused. By default it is not compared."""


class WithdrawPriceChangeRequest(Body):
    """The reason for which a price change is withdrawn."""

    why: Text
    """The reason, for the audit log."""


class ChangedTerm(TypedDict):
    """A term of a plan that differs between two versions."""

    term: str
    """The term, such as `fee` or `meters.api_calls.price`."""
    before: str | None
    """The value before; null where there is none."""
    after: str | None
    """The value after; null where there is none."""


class PriceMoveResponse(TypedDict):
    """A plan whose subscribers move to another version."""

    plan: str
    """The plan, such as `standard`; `standard+acme` is one customer's own price."""
    before: str
    """The version that is sold until then."""
    after: str
    """The version that is sold from then on."""
    subscribers: int
    """The subscribers who are to move, by what they have now."""
    changes: list[ChangedTerm]
    """The terms that differ. Amounts are smallest units of the currency of the plans, such as cents; those in other
    currencies begin with its code, such as `eur.fee`."""


class SubscriberEffectResponse(TypedDict):
    """The effect of a price change on a subscriber. Amounts are smallest units of the currency, such as cents."""

    customer: str
    """The customer, by name."""
    before_plan: str
    """The version that it would have without the change."""
    plan: str
    """The version that it moves to."""
    period_start: str
    """The beginning of the period whose usage is rated: the last one that is over."""
    period_end: str
    """The end of that period."""
    before: int | None
    """The cost of a month by the version before; null where the usage is not stored any more."""
    after: int | None
    """The cost of a month by the version after; null where the usage is not stored any more."""
    difference: int
    """The amount that is paid more; below zero: less."""
    currency: str
    """The currency of the amounts (ISO 4217), such as `usd`."""


class CurrencyEffectResponse(TypedDict):
    """The sums of all subscribers who were rated in a currency."""

    currency: str
    """The currency (ISO 4217), such as `usd`."""
    before: int
    """The sum by the versions before."""
    after: int
    """The sum by the versions after."""
    difference: int
    """The sum that is paid more; below zero: less."""


class PriceEffectResponse(TypedDict):
    """The effect of a price change by the usage of the last full period. Amounts are smallest units of a currency, such
    as cents, of a month, before discounts and tax."""

    subscribers: int
    """All subscribers who are to move."""
    rated: int
    """The subscribers whose usage was rated: fewer where there are more than can be in 20 seconds."""
    currencies: list[CurrencyEffectResponse]
    """The sums of those rated, in each currency: nothing is converted."""
    customers: list[SubscriberEffectResponse]
    """Each subscriber, by currency, those who pay most more first."""


class PriceChangeResponse(TypedDict):
    """A price change."""

    id: str | None
    """The id of the price change; null in a dry run."""
    at: str
    """The time from which the new versions are sold."""
    state: Literal["scheduled", "done", "withdrawn"]
    """`scheduled`, then `done` when its time has come, or `withdrawn`."""
    why: str
    """The reason that an operator gave."""
    created_at: str
    """The time at which it was scheduled."""
    created_by: str
    """The operator who scheduled it."""
    decided_at: str | None
    """The time at which it was done or withdrawn; null while it is scheduled."""
    moves: list[PriceMoveResponse]
    """The plans whose subscribers move."""
    digest: NotRequired[str]
    """In a dry run, the digest of all that it has shown."""
    effect: NotRequired[PriceEffectResponse]
    """The effect on subscribers, in a dry run and of a change that is scheduled."""


class PriceChangeList(TypedDict):
    """A page of price changes, newest first."""

    price_changes: list[PriceChangeResponse]
    """The price changes."""
    next: NotRequired[str]
    """The cursor of the next page; missing where this is the last."""


class PlanVersionResponse(PlanResponse):
    """A version of a plan, as it was recorded."""

    state: Literal["sold", "scheduled", "former"]
    """`sold` to new subscribers; `scheduled` for a price change; `former`: neither."""
    begins_at: str | None
    """The time from which a price change sells it; null where none does."""
    subscribers: int
    """The subscribers who have it now."""
    created_at: str
    """The time at which it was recorded."""
    terms: dict[str, JsonValue]
    """The version as a `plans.yaml` has it, in texts, so that a new one can be made of it. Prices without a currency
    are in `currency`."""


class PlanVersionList(TypedDict):
    """All versions of plans that were recorded."""

    versions: list[PlanVersionResponse]
    """The versions, by plan and number."""


class NextTerms(TypedDict):
    """The terms that follow by a price change."""

    at: str
    """The time from which they hold: when the customer next pays for a period after the change."""
    plan: PlanResponse
    """The version that the customer moves to."""
    changes: list[ChangedTerm]
    """The terms that differ from those before. Amounts are smallest units of the currency, such as cents."""


class SubscribedPlanResponse(TypedDict):
    """The terms that a customer has, and those that follow."""

    plan: PlanResponse
    """The version that the customer has."""
    price_change: NextTerms | None
    """The next price change; null where none is ahead."""
