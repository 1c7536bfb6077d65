"""The operations of models' APIs, told by method and path, and answers that count nothing, or nothing yet."""

import pytest

from edgeproxy.edge.body_usage.formats import get_usage_format
from edgeproxy.edge.body_usage.operations import (
    Work,
    counts_nothing,
    find_results,
    find_work,
    is_blocked,
    is_failure,
    is_pending,
)

OPENAI = get_usage_format("openai")


@pytest.mark.parametrize(
    ("method", "path", "work"),
    [
        (b"GET", b"/v1/responses/resp_1", Work.STORED),
        (b"POST", b"/v1/responses/resp_1/cancel", Work.STORED),
        (b"POST", b"/v1/chat/completions", Work.GENERATES),
        (b"POST", b"/v1/messages/count_tokens", Work.NONE),
        (b"POST", b"/v1/files", Work.NONE),
        (b"POST", b"/v1/something/new", Work.GENERATES),
        (b"GET", b"/v1/chat/deferred-completion/d1", Work.DEFERRED),
        (b"GET", b"/async/chat/completions/a1", Work.DEFERRED),
        (b"GET", b"/async/chat/completions", Work.STORED),
    ],
)
def test_method_and_path_identify_model_work(method: bytes, path: bytes, work: Work) -> None:
    assert find_work(method, path)[0] is work


def test_embeddings_and_ranks_have_no_output() -> None:
    paths = (b"/v1/chat/completions", b"/v1/new", b"/v1/embeddings", b"/v2/rerank")
    assert [find_work(b"POST", path)[1] for path in paths] == [True, True, False, False]


def test_path_identifies_results_of_a_batch() -> None:
    assert find_results(b"GET", b"/v1/files/file-1/content") == b"file-1"
    assert find_results(b"GET", b"/v1/messages/batches/b1/results") == b"b1"
    assert find_results(b"POST", b"/v1/files/file-1/content") is None
    assert find_results(b"GET", b"/v1/files/file-1") is None


@pytest.mark.parametrize(
    ("body", "has_content", "fails"),
    [
        (b'{"error": {"message": "no"}}', False, True),
        (b'{"error": {"message": "no"}}', True, False),
        (b'{"error": {"message": "no"}, "usage": {"prompt_tokens": 1, "completion_tokens": 2}}', False, False),
        (b'{"error": false}', False, False),
        (b'{"object": "error"}', False, True),
        (b"{}", False, False),
    ],
)
def test_an_error_and_nothing_else_is_a_failure(body: bytes, has_content: bool, fails: bool) -> None:
    counts, _ = OPENAI.read_json(body, has_output=True)
    assert is_failure(counts, has_content=has_content) is fails
    assert counts_nothing(counts, has_content=has_content) is fails


def test_an_answer_is_pending_until_its_status_is_final() -> None:
    written = (b'"queued"', b'"CREATED"', b'"completed"', b"5", b"null")
    states = [OPENAI.read_json(b'{"status": %b}' % state, has_output=True)[0] for state in written]
    assert [is_pending(counts) for counts in states] == [True, True, False, False, False]
    assert [counts_nothing(counts, has_content=True) for counts in states] == [True, True, False, False, False]


def test_guards_of_bedrock_write_answers() -> None:
    texts = (
        b'{"stopReason": "guardrail_intervened"}',
        b'{"amazon-bedrock-guardrailAction": "INTERVENED"}',
        b'{"amazon-bedrock-guardrailAction": "NONE", "stopReason": "end_turn"}',
    )
    assert [is_blocked(get_usage_format("bedrock").read_json(text)[0]) for text in texts] == [True, True, False]


def test_messages_are_read_for_their_markers_once_the_model_is_named() -> None:
    text = b'{"type": "session.updated", "session": {"model": "m"}}'
    assert OPENAI.read_message(text, is_named=True) is None
    counts = OPENAI.read_message(text, is_named=False)
    assert counts is not None
    assert (counts.find_text("model"), counts.model, counts.resolve().rule, counts.has_numbers) == ("m", "m", "", False)
