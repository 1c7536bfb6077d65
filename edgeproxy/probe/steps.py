"""The steps of a round, and what each makes of an answer. Pure."""

import re
from collections.abc import Mapping
from typing import NamedTuple

import orjson

STEPS = ("request", "limits", "usage")
POLICY = re.compile(r'"([^"]+)"(?=[^,]*;q=(\d+))(?=[^,]*;w=\d+)')
"""A member of RateLimit-Policy: its name and its quota."""
STATE = re.compile(r'"([^"]+)"(?=[^,]*;r=(\d+))')
"""A member of RateLimit: its name and what remains."""


class Failed(Exception):
    """A step did not go as it should; the text says why."""


class Step(NamedTuple):
    """A step that was made: how long it took, and why it failed."""

    name: str
    seconds: float
    why: str | None = None


def check_answer(status: int) -> None:
    """Raise Failed unless a status is that of a success or a redirection."""
    if not 200 <= status < 400:
        raise Failed(f"the request was answered {status}")


def check_limits(fields: Mapping[str, str]) -> None:
    """Raise Failed unless the head of an answer has RateLimit fields that go together (draft 10)."""
    told = {name: int(quota) for name, quota in POLICY.findall(fields.get("RateLimit-Policy", ""))}
    left = {name: int(rest) for name, rest in STATE.findall(fields.get("RateLimit", ""))}
    if not told or not left:
        raise Failed("the answer has no RateLimit fields: has the customer of the key a rate?")
    for name, rest in left.items():
        if name not in told:
            raise Failed(f"RateLimit tells of {name!r}, and RateLimit-Policy does not")
        if rest > told[name]:
            raise Failed(f"{rest} of {told[name]} requests are left of {name!r}")


def total_of(body: bytes) -> int:
    """Return the total that the collector's answer to `GET /v1/usage` has, of all meters; raises Failed."""
    try:
        told = orjson.loads(body)
        total = told["total"] if "totals" not in told else sum(told["totals"].values())
    except (ValueError, LookupError, TypeError, AttributeError):
        total = None
    if not isinstance(total, int):
        raise Failed("the collector does not answer as a collector does")
    return total
