"""The meaning of each answer of the collector."""

import math

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.edge.usage.answer import RESULTS, Act, AnswerMeaning, Reply, interpret_answer
from edgeproxy.wire.batch import FIRST, Batch, Gap

SENT = Batch("edge-1", "here", 5, 0, 0, FIRST, (("acme", "requests", "v1", 1),))
GAP = SENT._replace(rows=(), gap=Gap(5, 7, "gone"))
LAST = 9
FAR = "the collector has batch 10 of this edge, and the last one here is 9"


def hear(status: int, said: object = None, sent: Batch = SENT) -> AnswerMeaning:
    return interpret_answer(Reply(status, b"" if said is None else orjson.dumps(said), 7.0), sent, LAST)


@pytest.mark.parametrize(
    ("sent", "status", "said", "result", "watermark"),
    [
        (SENT, 200, {"watermark": 5}, "acknowledged", 5),
        # The collector had already settled this batch and later ones.
        (SENT, 200, {"watermark": 9}, "acknowledged", 9),
        (GAP, 200, {"watermark": 7}, "gap", 7),
        (SENT, 409, {"error": "gap", "expected": 3}, "expected", 2),
        (SENT, 409, {"error": "gap", "expected": 1}, "expected", 0),
        (SENT, 409, {"expected": 10}, "expected", 9),
        (SENT, 422, {"error": "unreadable", "detail": "is not JSON", "watermark": 5}, "quarantined", 5),
        (SENT, 422, {"watermark": 8}, "quarantined", 8),
        # The collector has the batches of the gap, or has another gap there.
        (GAP, 409, {"error": "fork", "watermark": 6}, "expected", 6),
        (GAP, 409, {"error": "fork", "watermark": 9}, "expected", 9),
    ],
)
def test_shipping_continues_at_the_watermark(
    sent: Batch, status: int, said: object, result: str, watermark: int
) -> None:
    answer = hear(status, said, sent)
    assert (answer.act, answer.result, answer.watermark) == (Act.GO_ON, result, watermark)
    assert bool(answer.why) == (result not in ("acknowledged", "gap"))


@pytest.mark.parametrize(
    ("sent", "status", "said", "result", "why"),
    [
        (SENT, 409, {"error": "fork", "detail": "settled", "watermark": 8}, "fork", "batch 5: settled"),
        (SENT, 409, {"error": "fork"}, "fork", "batch 5: fork"),
        (GAP, 409, {"error": "fork"}, "fork", "batch 5: fork"),
        (GAP, 409, {"error": "fork", "watermark": 4}, "fork", "batch 5: fork"),
        (SENT, 409, {"error": "chain", "watermark": 4}, "chain", "batch 5: chain"),
        (SENT, 200, {"watermark": 10}, "ahead", FAR),
        (SENT, 409, {"expected": 11}, "ahead", FAR),
        (SENT, 409, {"error": "fork", "watermark": 10}, "ahead", FAR),
        (SENT, 422, {"watermark": 10}, "ahead", FAR),
    ],
)
def test_shipping_stops(sent: Batch, status: int, said: object, result: str, why: str) -> None:
    assert hear(status, said, sent) == AnswerMeaning(Act.STOP, result, why)


@pytest.mark.parametrize(
    ("status", "said", "result", "why"),
    [
        (429, {"detail": "more batches are waiting"}, "busy", "the collector answers 429: more batches are waiting"),
        (503, {"detail": "the database"}, "failed", "the collector answers 503: the database"),
        (500, None, "failed", "the collector answers 500"),
        (408, None, "failed", "the collector answers 408"),
        (400, None, "refused", "the collector answers 400"),
        (
            401,
            {"detail": "the token is not known\nhere"},
            "refused",
            "the collector answers 401: the token is not known here",
        ),
        (403, {"detail": "x" * 999}, "refused", f"the collector answers 403: {'x' * 200}"),
        (404, {"detail": 7}, "refused", "the collector answers 404"),
        (413, [], "refused", "the collector answers 413"),
        (301, None, "refused", "the collector answers 301"),
        (204, {"watermark": 5}, "refused", "the collector answers 204"),
        (200, None, "refused", "the collector answers 200"),
        (200, {"watermark": 4}, "refused", "the collector answers 200"),
        (200, {"watermark": "5"}, "refused", "the collector answers 200"),
        (200, {"watermark": True}, "refused", "the collector answers 200"),
        (409, {"expected": 5}, "refused", "the collector answers 409"),
        (409, {"expected": 0}, "refused", "the collector answers 409"),
        (409, {"error": "conflict"}, "refused", "the collector answers 409"),
        (422, {"error": "headers", "detail": "no Edge-Id"}, "refused", "the collector answers 422: no Edge-Id"),
        (422, {"watermark": 4}, "refused", "the collector answers 422"),
    ],
)
def test_shipping_retries(status: int, said: object, result: str, why: str) -> None:
    assert hear(status, said) == AnswerMeaning(Act.AGAIN, result, why, retry_after=7.0)


def test_a_quarantined_gap_is_sent_again() -> None:
    answer = hear(422, {"watermark": 5}, GAP)
    assert (answer.act, answer.result) == (Act.AGAIN, "quarantined")


def test_a_partly_acknowledged_gap_is_sent_again() -> None:
    assert hear(200, {"watermark": 6}, GAP).act is Act.AGAIN


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 70), 1 << 70) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda some: st.lists(some, max_size=3) | st.dictionaries(st.text(max_size=3), some, max_size=3),
    max_leaves=5,
)
SAID = st.dictionaries(
    st.sampled_from(("watermark", "expected", "error", "detail")),
    JSON | st.integers(-1, 12) | st.sampled_from(("fork", "chain", "gap")),
)


@given(st.integers(100, 599), st.binary(max_size=20) | SAID, st.sampled_from((SENT, GAP)))
def test_every_answer_has_a_valid_meaning(status: int, said: object, sent: Batch) -> None:
    if isinstance(said, bytes):
        body = said
    else:
        body = orjson.dumps(said, option=orjson.OPT_NON_STR_KEYS, default=str) if _is_small(said) else b"{"
    answer = interpret_answer(Reply(status, body), sent, LAST)
    assert answer.result in RESULTS
    assert answer.why.isprintable()
    assert len(answer.why) < 300
    if answer.act is Act.GO_ON:
        # The watermark stays within the sealed batches, and the sent batch is never sent again at once.
        assert 0 <= answer.watermark <= LAST
        assert answer.watermark != sent.seq - 1


def _is_small(said: object) -> bool:
    """Return whether JSON can encode the value with integers of 64 bits."""
    if isinstance(said, dict):
        return all(map(_is_small, said.values()))
    if isinstance(said, list):
        return all(map(_is_small, said))
    if isinstance(said, float):
        return math.isfinite(said)
    return not isinstance(said, int) or abs(said) < 1 << 63
