"""The operations of models' APIs, by method and path: which of them generate, and which only return what is stored.

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
    """The answer returns what a model has made for another request."""
    NONE = auto()
    """No model works: nothing is estimated. Usage that is stated all the same counts."""


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
            rb"/responses/[^/]+/cancel",
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
    # Files, stores, batches and settings are created; what they lead to counts when it is there.
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
            rb"/vector_stores(?:/[^/]+)*",
            rb"/(?:assistants|conversations|threads|containers|evals|prompts|skills)(?:/[^/]+)?",
            rb"/(?:threads|conversations)/[^/]+/(?:messages|items)(?:/[^/]+)?",
            rb"/containers/[^/]+/files",
            rb"/fine_tuning/.*",
            rb"/fine-tunes?(?:/.*)?",
            rb"/moderations",
            rb"/realtime/(?:sessions|client_secrets|transcription_sessions)",
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
"""Ends of the most frequent paths, which are told without a search."""
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
RESULTS: Final = re.compile(rb"/(?:files/([^/]+)/content|batches/([^/]+)/results)/?\Z")
"""Paths of the results of a batch, one answer a line."""

PENDING: Final = frozenset(
    (
        *(b"queued", b"in_progress", b"requires_action", b"cancelling", b"validating", b"finalizing", b"pending"),
        *(b"running", b"canceling", b"in_queue", b"submitted", b"processing"),
    )
)
"""Statuses of an answer that is not finished: its usage counts once it is."""
ASYNCHRONOUS: Final = frozenset((b"response", b"thread.run", b"batch"))
"""Objects that may be finished after the request that has caused them."""
NEVER_ASYNCHRONOUS: Final = frozenset((b"chat.completion", b"list"))
"""Objects that are only returned once they are whole: their usage counts with the request that has caused them."""


def find_work(method: bytes, path: bytes) -> Work:
    """Return the work that a request causes; `path` has no query."""
    if method != b"POST":
        return Work.STORED
    if path.endswith(GENERATING):
        return Work.GENERATES
    for operation in OPERATIONS:
        if method in operation.methods and operation.path.search(path):
            return operation.work
    return Work.GENERATES


def generates_output(path: bytes) -> bool:
    """Return whether answers at a path have output."""
    return path.endswith(GENERATING) or WITHOUT_OUTPUT.search(path) is None


def find_results(method: bytes, path: bytes) -> bytes | None:
    """Return the id of the file or batch whose results a request asks for; None where it asks for something else."""
    match = RESULTS.search(path) if method == b"GET" else None
    return None if match is None else match[1] or match[2]


def is_failure(counts: StatedCounts, *, has_content: bool) -> bool:
    """Return whether an answer is an error and nothing else. `has_content`: a model may have generated something."""
    error, kind = counts.find_text(facts.ERROR), counts.find_text(facts.KIND)
    if (error is None or error in (b"false", b"0")) and kind != b"error":
        return False
    return not has_content and not counts.find_number("output_tokens")


def is_pending(counts: StatedCounts) -> bool:
    """Return whether an answer is not finished."""
    return counts.find_text(facts.STATUS) in PENDING
