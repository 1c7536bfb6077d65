"""The problems of edges, events, Stripe's events and residencies."""

from typing import Final

from edgeproxy.base.problem_codes import ProblemCode
from edgeproxy.collector.languages.marks import N_

EDGE_NOT_FOUND: Final = ProblemCode(
    "edge-not-found", 404, "There is no such edge.", "Read the list of the edges.", N_("There is no such edge.")
)
EDGE_CHAIN_BEGUN: Final = ProblemCode(
    "edge-chain-begun", 409, "The chain of the edge has begun, so its watermark stays.", "Leave the watermark out."
)
EDGE_WITHOUT_BATCH: Final = ProblemCode(
    "edge-without-batch", 409, "The edge has shipped no batch.", "Repeat the report after its first batch."
)
EDGE_ID_MISSING: Final = ProblemCode(
    "edge-id-missing", 422, "The field `Edge-Id` is missing, or names no edge.", "Send the id of the edge."
)
REPORT_OUT_OF_TIME: Final = ProblemCode(
    "report-out-of-time",
    422,
    "The report is of a minute that is too old, or in the future.",
    "Check the clock of the edge.",
)
EVENT_INVALID: Final = ProblemCode(
    "event-invalid",
    422,
    "The event cannot be used.",
    "Correct what `detail` names.",
    N_("This event cannot be counted."),
    has_reason=True,
)
EVENT_REJECTED: Final = ProblemCode(
    "event-rejected",
    409,
    "The event cannot be counted.",
    "Correct what `detail` names.",
    N_("This event cannot be counted."),
    has_reason=True,
)
DEAD_LETTER_NOT_FOUND: Final = ProblemCode(
    "dead-letter-not-found",
    404,
    "There is no such dead letter.",
    "Read the list of the dead letters.",
    N_("There is no such entry."),
)
BATCH_NOT_FOUND: Final = ProblemCode(
    "batch-not-found",
    404,
    "There is no such batch in quarantine.",
    "Read the list of the quarantine.",
    N_("There is no such batch."),
)
BATCH_INVALID: Final = ProblemCode(
    "batch-invalid",
    422,
    "The batch cannot be counted.",
    "Correct the body, or discard the batch.",
    N_("This batch cannot be counted."),
    has_reason=True,
)
BATCH_IS_GAP: Final = ProblemCode(
    "batch-is-gap",
    409,
    "The batch owns up to a gap, and counts nothing.",
    "No step is possible: the edge no longer has the batches of the gap.",
    N_("This batch reports a gap. There is nothing in it to count."),
)
BATCH_COUNTED: Final = ProblemCode(
    "batch-counted",
    409,
    "The batch is counted already, and its stored body cannot be read.",
    "Its usage is in the ledger. Have an operator look at the alert that names the row.",
    N_("This batch is counted already, and what is stored of it cannot be read."),
)
BATCH_COUNTED_OTHERWISE: Final = ProblemCode(
    "batch-counted-otherwise",
    409,
    "The batch is counted already, with another body.",
    "No step is possible: a batch counts once, so this body cannot replace the counted one.",
    N_("This batch is counted already, with different content."),
)
DIRECTORY_PART_NOT_FOUND: Final = ProblemCode(
    "directory-part-not-found", 404, "There is no such part of the directory.", "Read the newest version."
)
WEBHOOK_SIGNATURE_INVALID: Final = ProblemCode(
    "webhook-signature-invalid",
    400,
    "Stripe's signature is missing, wrong or too old.",
    "Check the webhook secret and the clock.",
)
STRIPE_EVENT_NOT_FOUND: Final = ProblemCode(
    "stripe-event-not-found", 404, "Neither the collector nor Stripe has such an event.", "Check the id and the mode."
)
MOVE_NOT_FOUND: Final = ProblemCode(
    "move-not-found", 404, "There is no such move of a customer.", "Read the customer's moves."
)
MOVE_STATE: Final = ProblemCode(
    "move-state", 409, "The state of the move does not permit the step.", "Read its `state`."
)
MOVE_BLOCKED: Final = ProblemCode(
    "move-blocked", 409, "Something keeps the customer from moving. `detail` lists it.", "Remove the obstacles first."
)
RESIDENCY_MISSING: Final = ProblemCode(
    "residency-missing", 409, "The collector has no residency.", "Set `residency` in the collector's file."
)
