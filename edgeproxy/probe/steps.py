"""The steps of a round, and what each makes of an answer. Pure."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import orjson

POLICY = re.compile(r'"([^"]+)"(?=[^,]*;q=(\d+))(?=[^,]*;w=\d+)')
"""A member of RateLimit-Policy: its name and its quota."""
STATE = re.compile(r'"([^"]+)"(?=[^,]*;r=(\d+))')
"""A member of RateLimit: its name and what remains."""
NO_COLLECTOR = "the collector does not answer as a collector does"


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


class Statement(NamedTuple):
    """What a month's statement says, in millicredits."""

    opening: int
    moved: int
    """What its lines come to."""
    closing: int
    purchases: tuple[tuple[str, int], ...]
    """The ids of what was bought, and for how much."""

    def check(self, balance: int) -> None:
        """Raise Failed unless all that was booked comes to this balance."""
        if self.opening + self.moved != self.closing:
            lines = f"its lines come to {self.moved}, and it closes with {self.closing} millicredits"
            raise Failed(f"the statement opens with {self.opening}, {lines}")
        if self.closing != balance:
            raise Failed(f"the balance is {balance} millicredits, and what is booked comes to {self.closing}")


def statement_of(body: bytes) -> Statement:
    """Return the statement that the collector's answer has; raises Failed."""
    opening, closing = numbers_of(body, "opening", "closing")
    try:
        lines = _told(body)["lines"]
        moved = sum(line["millicredits"] for line in lines)
        bought = tuple((line["reference"], line["millicredits"]) for line in lines if line["kind"] == "purchase")
    except (LookupError, TypeError):
        raise Failed(NO_COLLECTOR) from None
    return Statement(opening, moved, closing, bought)


def numbers_of(body: bytes, *names: str) -> tuple[int, ...]:
    """Return these whole numbers of the collector's answer; raises Failed."""
    found = [one for one in map(_told(body).get, names) if type(one) is int]
    if len(found) < len(names):
        raise Failed(NO_COLLECTOR)
    return tuple(found)


def texts_of(body: bytes, *names: str) -> tuple[str, ...]:
    """Return these texts of the collector's answer; raises Failed."""
    found = [one for one in map(_told(body).get, names) if isinstance(one, str)]
    if len(found) < len(names):
        raise Failed(NO_COLLECTOR)
    return tuple(found)


def latest_month(body: bytes) -> str | None:
    """Return the latest month of which the collector's answer lists statements; None where there are none."""
    months = _told(body).get("statements")
    if not isinstance(months, list) or not all(isinstance(month, str) for month in months):
        raise Failed(NO_COLLECTOR)
    return months[0] if months else None


def _told(body: bytes) -> dict[str, Any]:
    try:
        told = orjson.loads(body)
    except ValueError:
        told = None
    if not isinstance(told, dict):
        raise Failed(NO_COLLECTOR)
    return told


def total_of(body: bytes) -> int:
    """Return the total that the collector's answer to `GET /v1/usage` has, of all meters; raises Failed."""
    try:
        told = orjson.loads(body)
        total = told["total"] if "totals" not in told else sum(told["totals"].values())
    except (ValueError, LookupError, TypeError, AttributeError):
        total = None
    if not isinstance(total, int):
        raise Failed(NO_COLLECTOR)
    return total
