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
    """The time when a subscription ends, and the reason."""

    when: Literal["now", "period_end"] = "period_end"
    """`period_end` ends the subscription when its paid period ends, `now` at once."""
    reason: CancellationReason | None = None
    """The reason, in Stripe's words; null if the customer gives none."""
    comment: Annotated[str, BeforeValidator(read_comment), WithJsonSchema(COMMENT_SCHEMA)] | None = None
    """The reason in the customer's own words; null if there are none."""


class Cancellation(TypedDict):
    """The reason why a customer has ended a plan, or will end it."""

    subscription: str
    """The id of the subscription."""
    plan: str
    """The version of the plan."""
    reason: CancellationReason | None
    """The reason, in Stripe's words; null if the customer gave none."""
    comment: str | None
    """The reason in the customer's own words; null if there are none."""
    created_at: str | None
    """The time when the customer gave the reason."""
    cancel_at: str | None
    """The time when the subscription ends, or ended."""


class CancellationList(TypedDict):
    """The reasons that a customer gave for its cancellations."""

    cancellations: list[Cancellation]
    """The latest cancellations, newest first."""
