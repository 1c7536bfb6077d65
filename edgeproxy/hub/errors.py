"""Errors of a hub, for its users.

They are separate because an edge without a hub imports nothing else here. The Redis library takes seven megabytes per
process.
"""


class HubUnavailableError(Exception):
    """The hub cannot be reached. The message says why."""


class HubRefusalError(Exception):
    """The hub answers a command with an error. The message is that error."""
