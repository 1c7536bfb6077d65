"""The operations of models' APIs, by method and path: which of them generate, and which only return stored answers.

A path that is in no row and is posted to generates: a service that adds one tomorrow is estimated, and the metric of
missing usage says so.
"""

import re
from enum import Enum, auto
from typing import Final, NamedTuple

from edgeproxy.edge.body_usage import dialects as facts
from edgeproxy.edge.body_usage.statement import StatedCounts


class Work(Enum):
    """The work of a model that a request causes."""

    GENERATES = auto()
    """A model works for each request."""
    STORED = auto()
    """The answer returns work that a model has done for another request."""
    DEFERRED = auto()
    """The answer returns work that a model has done for a request that did not wait for it."""
    NONE = auto()
    """No model works: nothing is estimated. Stated usage still counts."""


class Operation(NamedTuple):
    """An operation: a method, the end of a path, and the work."""

    methods: frozenset[bytes]
    path: re.Pattern[bytes]
    work: Work


POST: Final = frozenset((b"POST",))
ID: Final = rb"/[^/]+"


def compile_path(*ends: bytes) -> re.Pattern[bytes]:
    """Compile the pattern of paths with one of these ends, which may have a slash behind it."""
    return re.compile(rb"(?:%b)/?\Z" % b"|".join(ends))


OPERATIONS: Final = (
    # Stored answers that are returned by a request with a body.
    Operation(
        POST,
        compile_path(
            rb"/(?:responses|interactions)/[^/]+/cancel",
            rb"/(?:batches|runs|jobs|batchJobs)/[^/:]+[:/]cancel",
            rb"/chat/completions/[^/]+",
        ),
        Work.STORED,
    ),
    # Tokens are counted; nothing is generated.
    Operation(
        POST,
        compile_path(
            rb"/count_tokens",
            rb"/count-tokens(?:@[^/]*)?",
            rb"count-tokens:rawPredict",
            rb"/input_tokens",
            rb":(?:countTokens|computeTokens)",
            rb"/tokenize",
            rb"/detokenize",
            rb"/apply-template",
            rb"/token-count",
        ),
        Work.NONE,
    ),
    # Files, stores, batches and settings are created; their later results count when they exist.
    Operation(
        POST,
        compile_path(
            rb"/files",
            rb"/uploads",
            rb"/uploads/[^/]+/(?:parts|complete|cancel)",
            rb"/(?:messages/)?batches",
            rb":(?:asyncB|b)atch(?:GenerateContent|EmbedContent)",
            rb"/model-invocation-jobs?",
            rb"/batch/jobs",
            rb"/cachedContents",
            rb"/fileSearchStores(?:/[^/:]+)*",
            rb":(?:importFile|uploadToFileSearchStore)",
            rb"/vector_stores(?:/[^/]+)*",
            rb"/(?:assistants|conversations|threads|containers|evals|prompts|skills)(?:/(?!runs\Z)[^/]+)?",
            rb"/(?:threads|conversations)/[^/]+/(?:messages|items)(?:/[^/]+)?",
            rb"/containers/[^/]+/files",
            rb"/fine_tuning/.*",
            rb"/fine-tunes?(?:/.*)?",
            rb"/moderations",
            rb"/realtime/(?:sessions|client_secrets|transcription_sessions)",
            rb"/(?:chatkit|live)/sessions",
            rb"/realtime/calls/[^/]+/(?:accept|hangup|refer|reject)",
            rb"/api/(?:show|pull|push|copy|create|delete|blobs/[^/]+)",
            rb"/(?:load|unload)_lora_adapter",
            rb"/(?:models|tunedModels)",
        ),
        Work.NONE,
    ),
)
"""The operations that are posted and generate nothing, or nothing new. All others that are posted generate."""

GENERATING: Final = (
    *(b"/completions", b"/responses", b"/messages", b":generateContent", b":streamGenerateContent"),
    *(b"/converse", b"/converse-stream", b"/invoke", b"/invoke-with-response-stream", b"/chat", b"/generate"),
)
"""Ends of the most frequent paths, which are recognized without a search."""
WITHOUT_OUTPUT: Final = compile_path(
    rb"/embeddings",
    rb"/embed",
    rb"/multimodalembeddings",
    rb"/re-?rank",
    rb"/score",
    rb"/classify",
    rb"/pooling",
    rb":(?:e|batchE)mbedContents?",
)
"""Paths whose answers have no output: a total alone is input there."""
RESULTS: Final = re.compile(rb"/(?:files/([^/]+)/content|batches/([^/]+)/results|files/([^/:]+):download)/?\Z")
"""Paths of the results of a batch, one answer a line."""

DEFERRED: Final = compile_path(
    rb"/chat/deferred-completion/[^/]+", rb"/async/chat/completions/[^/]+", rb"/async-result/[^/]+"
)
"""Paths of deferred answers: the request that caused them did not wait for them (xAI, Perplexity, Zhipu)."""
TICKET_BYTES_MAX: Final = 1024
"""Bytes of an answer that has only a ticket, the id for a later request of the answer."""

PENDING: Final = frozenset(
    (
        *("created", "queued", "in_progress", "cancelling", "validating", "finalizing", "pending"),
        *("running", "canceling", "in_queue", "submitted", "processing"),
    )
)
"""Statuses of an answer that is not finished: its usage counts once it is."""
WAITING: Final = frozenset(("requires_action", "requires_continuation"))
"""Statuses of an answer that waits for its client. Some are finished then, and state their usage."""
ASYNCHRONOUS: Final = frozenset(("response", "thread.run", "batch", "interaction"))
"""Objects that may be finished after the request that has caused them."""
NEVER_ASYNCHRONOUS: Final = frozenset(("chat.completion", "list"))
"""Objects that are only returned once they are whole: their usage counts with the request that has caused them."""
BLOCKED: Final = frozenset(("guardrail_intervened", "INTERVENED", "GUARDRAIL_INTERVENED"))
"""Statuses of an answer whose text was written by a guard of the service: a model may have used nothing."""


USUAL_WORK: Final = (Work.GENERATES, True)
NO_ERROR: Final = (None, b"false", b"0")
"""Errors that are none."""


def find_work(method: bytes, path: bytes) -> tuple[Work, bool]:
    """Return the work that a request causes, and whether its answer has output. Without output a total alone is input.

    `path` has no query.
    """
    if path.endswith(GENERATING):
        return USUAL_WORK if method == b"POST" else (Work.STORED, True)
    return _find_unusual_work(method, path), WITHOUT_OUTPUT.search(path) is None


def _find_unusual_work(method: bytes, path: bytes) -> Work:
    if method != b"POST":
        return Work.DEFERRED if DEFERRED.search(path) else Work.STORED
    for operation in OPERATIONS:
        if method in operation.methods and operation.path.search(path):
            return operation.work
    return Work.GENERATES


def find_results(method: bytes, path: bytes) -> bytes | None:
    """Return the id of the file or batch whose results a request asks for; None if it asks for something else."""
    match = RESULTS.search(path) if method == b"GET" else None
    return None if match is None else match[1] or match[2] or match[3]


def is_failure(counts: StatedCounts, *, has_content: bool) -> bool:
    """Return whether an answer is an error and nothing else. `has_content`: a model may have generated something."""
    values = counts.values
    if values.get(facts.ERROR) in NO_ERROR and values.get(facts.KIND) != "error":
        return False
    return not has_content and not counts.find_number("output_tokens")


def counts_nothing(counts: StatedCounts, *, has_content: bool) -> bool:
    """Return whether an answer is an error and nothing else, or is not finished."""
    values = counts.values
    if facts.STATUS in values and is_pending(counts):
        return True
    return (facts.ERROR in values or values.get(facts.KIND) == "error") and is_failure(counts, has_content=has_content)


def is_pending(counts: StatedCounts) -> bool:
    """Return whether an answer is not finished."""
    status = (counts.find_text(facts.STATUS) or "").lower()
    return status in PENDING or (status in WAITING and not counts.has_numbers)


def is_blocked(counts: StatedCounts) -> bool:
    """Return whether a guard of the service has written the answer."""
    return counts.values.get(facts.STATUS) in BLOCKED
