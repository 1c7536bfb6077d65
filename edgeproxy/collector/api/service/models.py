"""The collector itself."""

from pydantic import ConfigDict
from typing_extensions import TypedDict


class Ready(TypedDict):
    """Whether batches can be taken now."""

    ready: bool
    """Whether batches can be taken now."""
    reason: str | None
    """The reason why not; null where they can."""


class ApiDescription(TypedDict):
    """The description of the API, with all members of an OpenAPI document."""

    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]

    openapi: str
    """The version of OpenAPI in which it is written."""
