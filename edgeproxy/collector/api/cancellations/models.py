"""Cancellations as the API shows them."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, WithJsonSchema
from typing_extensions import TypedDict

from edgeproxy.collector.accounts.models import Body
from edgeproxy.collector.billing.subscriptions.cancellations import CancellationReason
from edgeproxy.config.units import read_text, value_error

COMMENT_CHARACTERS_MAX = 500
A_COMMENT = f"1 to {COMMENT_CHARACTERS_MAX} printable characters, on as many lines as you like"
COMMENT_SCHEMA = {
    "type": "string",
    "minLength": 1,
    "maxLength": COMMENT_CHARACTERS_MAX,
    "pattern": "^[!-~]([ -~]*[!-~])?$",
}


def read_comment(value: object) -> str:
    """Read a comment, which may have several lines."""
    text = read_text(value, A_COMMENT).strip()
    if not (1 <= len(text) <= COMMENT_CHARACTERS_MAX and text.replace("\n", "").isprintable()):
        raise value_error("cannot be used", A_COMMENT)
    return text


class CancelSubscriptionRequest(Body):
    """The time at which a subscription ends, and why."""

    when: Literal["now", "period_end"] = "period_end"
    """`period_end` ends the subscription when its paid period ends, `now` at once."""
    reason: CancellationReason | None = None
    """Why it ends, in Stripe's words; null where the customer does not say."""
    comment: Annotated[str, BeforeValidator(read_comment), WithJsonSchema(COMMENT_SCHEMA)] | None = None
    """The same in the customer's own words; null where there are none."""


class Cancellation(TypedDict):
    """Why a customer has ended a plan, or is to."""

    subscription: str
    """The id of the subscription."""
    plan: str
    """The version of the plan."""
    reason: CancellationReason | None
    """The reason, in Stripe's words; null where the customer gave none."""
    comment: str | None
    """The reason in the customer's own words; null where there are none."""
    created_at: str | None
    """When the customer said so."""
    cancel_at: str | None
    """When the subscription ends, or ended."""


class CancellationList(TypedDict):
    """The cancellations of a customer for which it has said why."""

    cancellations: list[Cancellation]
    """The latest ones, newest first."""
