"""Queries of messages to endpoints of webhooks."""

import re
from typing import Annotated

from pydantic import BeforeValidator, WithJsonSchema

from edgeproxy.collector.api.endpoint import Query
from edgeproxy.config.units import Whole, value_error

MESSAGE_PATTERN = "^msg_[0-9a-f]{32}$"
MESSAGES_MAX = 100
"""Messages of a page."""


def read_message_cursor(value: object) -> str:
    """Read the end of the previous page: the id of a message."""
    if not re.fullmatch(MESSAGE_PATTERN, str(value)):
        raise value_error("is none that was given here as next", "send next of the page before")
    return str(value)


class MessagesQuery(Query):
    """The page of messages."""

    limit: Annotated[
        int,
        BeforeValidator(Whole(1, MESSAGES_MAX)),
        WithJsonSchema({"type": "integer", "minimum": 1, "maximum": MESSAGES_MAX}),
    ] = 20
    """The number of messages on the page, at most."""
    cursor: (
        Annotated[
            str,
            BeforeValidator(read_message_cursor),
            WithJsonSchema({"type": "string", "pattern": MESSAGE_PATTERN}),
        ]
        | None
    ) = None
    """The `next` of the page before; by default the first page."""
