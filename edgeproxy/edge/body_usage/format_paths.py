"""The paths of a format's answers to their facts: the paths of the table of dialects, and the paths of texts."""

from collections.abc import Mapping
from typing import Final

from edgeproxy.config.edge.response_usage import FormatName
from edgeproxy.edge.body_usage.dialect_rows import ROWS
from edgeproxy.edge.body_usage.dialects import (
    BACKGROUND,
    ERROR,
    FILE,
    ID,
    KIND,
    MODEL,
    RESULTS,
    STATUS,
    TICKET,
    TIER,
    Members,
)

TEXTS: Final[Mapping[FormatName, Members]] = {
    "openai": {
        MODEL: ("model", "response.model", "response.body.model", "session.model"),
        TIER: ("service_tier", "response.service_tier"),
        ID: ("id", "response.id"),
        KIND: ("object", "response.object"),
        STATUS: ("status", "response.status"),
        BACKGROUND: ("background", "response.background"),
        FILE: ("output_file_id",),
        TICKET: ("request_id",),
        ERROR: ("error", "response.error"),
    },
    "anthropic": {
        MODEL: ("model", "message.model", "result.message.model"),
        TIER: ("usage.service_tier", "message.usage.service_tier"),
        ID: ("id", "message.id", "result.message.id"),
        KIND: ("type",),
        STATUS: ("processing_status",),
        ERROR: ("error",),
    },
    "gemini": {
        MODEL: ("modelVersion", "model", "interaction.model", "agent", "interaction.agent", "response.modelVersion"),
        TIER: ("serviceTier", "service_tier", "interaction.service_tier"),
        ID: ("responseId", "id", "interaction.id", "response.responseId", "name"),
        KIND: ("object", "interaction.object"),
        STATUS: ("status", "interaction.status"),
        RESULTS: (
            "response.inlinedResponses.inlinedResponses",
            "metadata.output.inlinedResponses.inlinedResponses",
        ),
        ERROR: ("error",),
    },
    "bedrock": {
        MODEL: ("model", "message.model"),
        TIER: ("serviceTier.type",),
        ID: ("id", "message.id"),
        STATUS: ("stopReason", "amazon-bedrock-guardrailAction"),
        ERROR: ("error",),
    },
    "cohere": {MODEL: ("model",), ID: ("id",), ERROR: ("error",)},
    "ollama": {MODEL: ("model",), ERROR: ("error",)},
    "llamacpp": {MODEL: ("model",), ID: ("id",), ERROR: ("error",)},
    "any": {},
    "json": {MODEL: ("model",)},
}
"""The paths, from the top of an answer, of its model and of the facts that tell whether it counts, by format."""

MARKERS: Final[Mapping[FormatName, tuple[bytes, ...]]] = {
    "openai": (b'_tokens"', b'"error"', b'"seconds"'),
    "anthropic": (b'_tokens"', b'"error"'),
    "gemini": (b'TokenCount"', b'_tokens"', b'"error"'),
    "bedrock": (b'okens"', b'okenCount"', b'_token_count"', b'"bytes"', b'"error"'),
    "cohere": (b'_tokens"', b'"billed_units"', b'"error"'),
    "ollama": (b'eval_count"', b'"error"'),
    "llamacpp": (b'"tokens_predicted"', b'"error"'),
    "any": (),
    "json": (),
}
"""Each event that states numbers of a format, or an error, has at least one of these byte strings."""


def list_paths(name: FormatName) -> Mapping[str, tuple[str, int]]:
    """Return each path that answers of a format may state something at, with its fact, and its rank among the paths of
    that fact: the lowest is preferred.
    """
    paths: dict[str, tuple[str, int]] = {}
    ranks: dict[str, int] = {}
    rows = [row for row in ROWS if name in (row.format, "any")]
    texts = [*TEXTS.values()] if name == "any" else [TEXTS[name]]
    for place, members in [
        *[(place, row.members) for row in rows for place in (*row.json, *row.events, *row.messages)],
        *[("", members) for members in texts],
    ]:
        for fact, alternatives in members.items():
            for member in alternatives:
                path = f"{place}.{member}" if place else member
                if path not in paths:
                    paths[path] = fact, ranks.setdefault(fact, 0)
                    ranks[fact] += 1
    return paths


def list_markers(name: FormatName) -> tuple[bytes, ...]:
    """Return byte strings; each event of a format that states numbers, or an error, has at least one of them."""
    if name != "any":
        return MARKERS[name]
    return tuple(dict.fromkeys([marker for markers in MARKERS.values() for marker in markers]))
