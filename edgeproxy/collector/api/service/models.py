"""The collector itself."""

from typing_extensions import TypedDict


class Ready(TypedDict):
    """Whether batches can be taken now."""

    ready: bool
    """Whether batches can be taken now."""
    reason: str | None
    """The reason why not; null where they can."""
