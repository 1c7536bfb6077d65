"""The clients' account: the results of requests by kind, and full details of each failed request."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import orjson

How = Literal["refused", "unconnected", "reset", "closed", "cut", "timeout", "status", "wrong", "told"]
HOW: dict[str, str] = {
    "refused": "nobody listened",
    "unconnected": "the connection, or its handshake, came to nothing",
    "reset": "a reset before any answer",
    "closed": "an end before any answer",
    "cut": "an answer, a stream or a tunnel that broke off",
    "timeout": "nothing for too long",
    "status": "an answer of the edge's own that says no",
    "wrong": "not what was asked for",
    "told": "a WebSocket closed with 1001 by the edge (no error, but only a drain may do it)",
}
COUNTED = ("asked", "answered", "unbilled", "whole", "refused", "connections")


@dataclass
class Trouble:
    """A failed request. Times are seconds of the monotonic clock, which all processes share."""

    kind: str
    how: How
    began: float
    at: float
    port: int
    """The client's own port, which identifies the worker; 0 without a connection."""
    endpoint: str
    """The endpoint that answered, if known."""
    status: int = 0
    detail: str = ""
    new: bool = False
    """No request was answered over this connection before."""
    idle: float = 0.0
    """Seconds from the end of the previous answer on this connection to this request; 0 if there was none."""


@dataclass
class Seen:
    """One answer of a kind whose answers depend on the configuration."""

    began: float
    at: float
    status: int
    served: bool
    """A service answered."""


@dataclass
class Account:
    """The whole account."""

    asked: Counter[str] = field(default_factory=Counter)
    """Requests begun, including requests without a connection."""
    answered: Counter[str] = field(default_factory=Counter)
    """Requests with a received head of a billable answer."""
    unbilled: Counter[str] = field(default_factory=Counter)
    """Requests with a received head of an answer of 500 and above, which is not billed."""
    whole: Counter[str] = field(default_factory=Counter)
    """Answers of both kinds that arrived whole and correct."""
    refused: Counter[str] = field(default_factory=Counter)
    """Refusals that the kind expects: 429, 401 or 404 by the edge."""
    connections: Counter[str] = field(default_factory=Counter)
    troubles: list[Trouble] = field(default_factory=list)
    seen: dict[str, list[Seen]] = field(default_factory=dict)

    def lost(self, kind: str) -> int:
        """Return the number of requests with neither an answer nor a refusal; the edge may or may not have counted
        them.
        """
        return self.asked[kind] - self.answered[kind] - self.unbilled[kind] - self.refused[kind]

    def __add__(self, more: "Account") -> "Account":
        """Return the sum of this account and a later one."""
        both: dict[str, Any] = {name: getattr(self, name) + getattr(more, name) for name in (*COUNTED, "troubles")}
        seen = {kind: self.seen.get(kind, []) + several for kind, several in more.seen.items()}
        return Account(**both, seen=seen)

    def write(self, file: Path) -> None:
        """Write the account to a file."""
        file.write_bytes(orjson.dumps(self))

    @classmethod
    def read(cls, file: Path) -> "Account":
        """Read a file of `write`."""
        body = orjson.loads(file.read_bytes())
        body["troubles"] = [Trouble(**trouble) for trouble in body["troubles"]]
        body["seen"] = {kind: [Seen(**each) for each in several] for kind, several in body["seen"].items()}
        for name in COUNTED:
            body[name] = Counter(body[name])
        return cls(**body)
