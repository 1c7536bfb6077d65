"""What clients write down: how many requests of each kind came to what, and of each that went wrong everything."""

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
    """A request that went wrong. Times are seconds of the monotonic clock, which all processes share."""

    kind: str
    how: How
    began: float
    at: float
    port: int
    """The client's own port, by which the worker is known; 0 where there was no connection."""
    endpoint: str
    """Who answered, as far as that was heard."""
    status: int = 0
    detail: str = ""
    new: bool = False
    """Whether nothing was ever answered over this connection."""
    idle: float = 0.0
    """Seconds from the end of the answer before on this connection to this request; 0 where there was none."""


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
    """All of it."""

    asked: Counter[str] = field(default_factory=Counter)
    """Requests begun, those without a connection among them."""
    answered: Counter[str] = field(default_factory=Counter)
    """Requests of which the head of a service's answer arrived that is billed."""
    unbilled: Counter[str] = field(default_factory=Counter)
    """The same of answers of 500 and above, which are not."""
    whole: Counter[str] = field(default_factory=Counter)
    """Of both, the ones that arrived whole and right."""
    refused: Counter[str] = field(default_factory=Counter)
    """Refusals that the kind must expect: 429, 401 or 404 by the edge."""
    connections: Counter[str] = field(default_factory=Counter)
    troubles: list[Trouble] = field(default_factory=list)
    seen: dict[str, list[Seen]] = field(default_factory=dict)

    def lost(self, kind: str) -> int:
        """Requests that got neither a service's answer nor a refusal: it is unknown what the edge did with them."""
        return self.asked[kind] - self.answered[kind] - self.unbilled[kind] - self.refused[kind]

    def __add__(self, more: "Account") -> "Account":
        """This and what came after it."""
        both: dict[str, Any] = {name: getattr(self, name) + getattr(more, name) for name in (*COUNTED, "troubles")}
        seen = {kind: self.seen.get(kind, []) + several for kind, several in more.seen.items()}
        return Account(**both, seen=seen)

    def write(self, file: Path) -> None:
        """Put it into a file."""
        file.write_bytes(orjson.dumps(self))

    @classmethod
    def read(cls, file: Path) -> "Account":
        """What `write` wrote."""
        told = orjson.loads(file.read_bytes())
        told["troubles"] = [Trouble(**each) for each in told["troubles"]]
        told["seen"] = {kind: [Seen(**each) for each in several] for kind, several in told["seen"].items()}
        for name in COUNTED:
            told[name] = Counter(told[name])
        return cls(**told)
