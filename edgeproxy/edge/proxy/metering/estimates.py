"""Estimates of the tokens of an answer that does not state them.

Input is estimated from the text and the media of the request, output from the text of the answer. No estimate of output
exceeds the maximum that the request allows.
"""

from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from edgeproxy.config.meters import MEASURES
from edgeproxy.edge.body_usage.answer_text import BYTES_PER_TOKEN_LEAST, AnswerText
from edgeproxy.edge.body_usage.collected_request import CollectedRequest
from edgeproxy.edge.body_usage.prompt_text import PromptSize

if TYPE_CHECKING:
    from edgeproxy.config.meters import Meter
    from edgeproxy.edge.body_usage.prompts import PromptReader

BLANK: Final = b"\r\n\r\n"
BYTES: Final = "bytes"
OF_ANY_JSON: Final = "response_json"
"""The count whose units are unknown: only the size of the answer bounds its estimate."""


class EstimatedRequest(Protocol):
    """A request whose answer does not state its usage."""

    bytes_in: int
    collected: CollectedRequest | None
    keep: bytes
    message: bytes


class RequestSize(NamedTuple):
    """The tokens that a request states."""

    input: PromptSize
    most: int | None
    """The maximum of output tokens; None if the request does not state it."""


class AnswerSize(NamedTuple):
    """The size of an answer's body."""

    size: int
    text: int | None
    """Bytes of its text; None if it cannot be read."""


def read_request(request: EstimatedRequest, reader: "PromptReader") -> RequestSize:
    """Return the tokens that a request states, from the body that was collected or that was sent with the head."""
    collected = request.collected
    if collected is None:
        body = request.message.partition(BLANK)[2]
        if len(body) < request.bytes_in:
            return RequestSize(PromptSize(request.bytes_in, 0), None)  # It was dropped to save memory.
        collected = CollectedRequest(request.keep)
        collected.feed(body)
    return RequestSize(collected.measure(reader.provider), reader.find_maximum(collected.list_texts()))


def measure_answer(body: bytes) -> AnswerSize:
    """Return the size of a complete answer's body."""
    text = AnswerText()
    text.add(body)
    return AnswerSize(len(body), text.size)


def estimate_number(meter: "Meter", request: RequestSize, answer: AnswerSize, *, has_output: bool = True) -> int:
    """Return the estimate of a missing number, rounded up. `has_output`: the operation generates output."""
    measure = MEASURES[meter.count].in_body
    form, _, divisor = meter.missing.partition("/")
    if not divisor or measure is None:
        return 0
    bytes_each = int(divisor)
    output = 0
    if has_output or meter.count == OF_ANY_JSON:
        size = answer.size if form == BYTES or answer.text is None else answer.text
        output = -(-size // bytes_each)
        if meter.count != OF_ANY_JSON:
            bounds = [request.most, None if answer.text is None else -(-answer.text // BYTES_PER_TOKEN_LEAST)]
            output = min([output, *[bound for bound in bounds if bound is not None]])
    return measure(request.input.estimate(bytes_each), output)
