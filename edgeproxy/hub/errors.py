"""What goes wrong with a hub, for those who ask it. An edge without a hub needs no more of this room: the library of
Redis takes seven megabytes of a process.
"""


class HubUnavailableError(Exception):
    """The hub cannot be reached; the text says why."""


class HubRefusalError(Exception):
    """The hub answers a command with an error; the text is that error."""
