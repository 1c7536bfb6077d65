"""The meaning of answers to a batch (docs/design/contract.md#batches). Pure.

answer                       said with it              what follows
-------------------------    ----------------------    ------------------------------------------------------
200                          watermark                 continue after it
409                          expected                  continue with that batch, earlier or later
409 fork, chain                                        stop; for a gap: continue after the watermark if it is settled
422                          watermark, moved          once more; then continue: the collector keeps and reports it;
                                                       a gap until it comes whole: nothing may follow it before
429, 5xx, 408                Retry-After               this batch again, later
any other                                              this batch again, later, and an operator must look

If the collector knows of batches that were never sealed here, another edge ships under this identity: stop.
"""

from enum import Enum
from typing import NamedTuple

import orjson

from edgeproxy.base.json_values import JsonObject
from edgeproxy.wire.batch import Batch

DETAIL_CHARACTERS_MAX = 200
"""Characters of a collector's detail that are passed on at most."""
RESULTS = (
    "acknowledged",
    "gap",
    "quarantined",
    "expected",
    "busy",
    "failed",
    "refused",
    "unreachable",
    "fork",
    "chain",
    "ahead",
)
"""Possible results of sending a batch; `unreachable`: no answer came."""


class Reply(NamedTuple):
    """An answer: its body, cut off if it is longer than any of a collector's, and the seconds of its Retry-After."""

    status: int
    body: bytes
    retry_after: float | None = None


class Act(Enum):
    """The shipper's next step."""

    GO_ON = "go on"
    AGAIN = "again"
    STOP = "stop"


class AnswerMeaning(NamedTuple):
    """The meaning of an answer: `result` is one of RESULTS, `why` a sentence if something is wrong.

    `watermark`, for GO_ON: continue after this batch. `retry_after`, for AGAIN: the minimum of seconds to wait, if the
    collector stated it.
    """

    act: Act
    result: str
    why: str = ""
    watermark: int = 0
    retry_after: float | None = None


def interpret_answer(reply: Reply, sent: Batch, last: int) -> AnswerMeaning:
    """Interpret the `reply` to the batch `sent`; `last` is the last one that was sealed here."""
    fields = _parse_object(reply.body)
    detail = _format_detail(fields)
    watermark, expected = _parse_number(fields.get("watermark"), 0), _parse_number(fields.get("expected"), 1)
    if reply.status in (200, 409, 422):
        most = max(-1 if watermark is None else watermark, -1 if expected is None else expected - 1)
        if most > last:
            return AnswerMeaning(
                Act.STOP, "ahead", f"the collector has batch {most} of this edge, and the last one here is {last}"
            )
    if reply.status == 200 and watermark is not None and watermark >= sent.last:
        return AnswerMeaning(Act.GO_ON, "acknowledged" if sent.gap is None else "gap", "", watermark)
    if reply.status == 409:
        error = fields.get("error")
        if expected is not None and expected != sent.seq:
            return AnswerMeaning(Act.GO_ON, "expected", f"the collector wants batch {expected}", expected - 1)
        if error == "fork" and sent.gap is not None and watermark is not None and watermark >= sent.seq:
            # The batch is lost here but not there. The next batch shows whether it was this edge's.
            return AnswerMeaning(Act.GO_ON, "expected", f"the collector has batch {sent.seq}", watermark)
        if error in ("fork", "chain"):
            return AnswerMeaning(Act.STOP, error, f"batch {sent.seq}: {detail or error}")
    if reply.status == 422 and watermark is not None and watermark >= sent.seq:
        act = Act.GO_ON if sent.gap is None else Act.AGAIN
        return AnswerMeaning(act, "quarantined", f"batch {sent.seq}: {detail or 'unreadable'}", watermark)
    answered = f"the collector answers {reply.status}" + (f": {detail}" if detail else "")
    if reply.status in (408, 429) or 500 <= reply.status <= 599:
        return AnswerMeaning(
            Act.AGAIN, "busy" if reply.status == 429 else "failed", answered, retry_after=reply.retry_after
        )
    return AnswerMeaning(Act.AGAIN, "refused", answered, retry_after=reply.retry_after)


def _parse_object(body: bytes) -> JsonObject:
    """Parse a body as a JSON object; empty if it is not one."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}


def _parse_number(value: object, lowest: int) -> int | None:
    return value if type(value) is int and value >= lowest else None


def _format_detail(fields: JsonObject) -> str:
    """Return the words of an answer in one line."""
    detail = fields.get("detail")
    if not isinstance(detail, str):
        return ""
    return "".join(character if character.isprintable() else " " for character in detail[:DETAIL_CHARACTERS_MAX])
