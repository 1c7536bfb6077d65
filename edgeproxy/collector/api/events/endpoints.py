"""The table of endpoints: events."""

from edgeproxy.collector.api.endpoint import ADMIN, JSON, JSON_LINES, SERVICE, Endpoint
from edgeproxy.collector.api.events.handlers import EventHandlers
from edgeproxy.collector.api.events.models import (
    CloudEvent,
    DeadLetterList,
    DeadLetterResponse,
    DeadLettersQuery,
    DiscardQuery,
    Event,
    EventsResult,
)
from edgeproxy.collector.api.group import Group, PathParameter

GROUP = Group(
    "events",
    "Usage events that services report, and rejected events.",
    EventHandlers,
    (
        Endpoint(
            "POST",
            "/v1/events",
            EventHandlers.ingest_events,
            "Ingest usage events. The answer comes once they are on disk.",
            roles=SERVICE,
            response=EventsResult,
            status=202,
            request_media={
                JSON: Event | list[Event],
                JSON_LINES: bytes,
                "application/cloudevents+json": CloudEvent,
                "application/cloudevents-batch+json": list[CloudEvent],
            },
            errors={
                413: "The body is too large.",
                415: "The content coding of the body is unknown.",
                429: "Too many events are waiting.",
            },
            example=[{"id": "1", "source": "worker", "customer": "acme", "meter": "llm_tokens", "value": 1200}],
        ),
        Endpoint(
            "GET",
            "/v1/dead-letters",
            EventHandlers.list_letters,
            "List the rejected events, oldest first.",
            roles=ADMIN,
            query=DeadLettersQuery,
            response=DeadLetterList,
        ),
        Endpoint(
            "GET",
            "/v1/dead-letters/{letter}",
            EventHandlers.fetch_letter,
            "Fetch a rejected event.",
            roles=ADMIN,
            response=DeadLetterResponse,
        ),
        Endpoint(
            "POST",
            "/v1/dead-letters/{letter}/replay",
            EventHandlers.replay_letter,
            "Count a rejected event now, unchanged or as in the request.",
            roles=ADMIN,
            response=EventsResult,
            request_media={JSON: Event | CloudEvent},
            errors={409: "The event was rejected again.", 422: "The event cannot be read."},
            example={"id": "2", "source": "worker", "customer": "acme", "meter": "llm_tokens", "value": 1200},
        ),
        Endpoint(
            "DELETE",
            "/v1/dead-letters/{letter}",
            EventHandlers.discard_letter,
            "Delete a rejected event for good.",
            roles=ADMIN,
            query=DiscardQuery,
            status=204,
        ),
    ),
    parameters={"letter": PathParameter("The id of the dead letter.")},
)
