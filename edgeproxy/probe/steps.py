"""The steps of a round, and the checks of each. Pure."""

import re
from collections.abc import Mapping
from typing import NamedTuple

import orjson

from edgeproxy.base.json_values import JsonObject

POLICY = re.compile(r'"([^"]+)"(?=[^,]*;q=(\d+))(?=[^,]*;w=\d+)')
"""A member of RateLimit-Policy: its name and its quota."""
STATE = re.compile(r'"([^"]+)"(?=[^,]*;r=(\d+))')
"""A member of RateLimit: its name and the remaining quota."""
NO_COLLECTOR = "the collector does not answer as a collector does"


class ProbeError(Exception):
    """A step has failed; the text gives the reason."""


class Step(NamedTuple):
    """A completed step: its duration, and the reason of a failure."""

    name: str
    seconds: float
    why: str | None = None


def check_answer(status: int) -> None:
    """Raise ProbeError unless a status is a success or a redirect."""
    if not 200 <= status < 400:
        raise ProbeError(f"the request was answered {status}")


def check_limits(fields: Mapping[str, str]) -> None:
    """Raise ProbeError unless the head of an answer has consistent RateLimit fields (draft 10)."""
    quotas = {name: int(quota) for name, quota in POLICY.findall(fields.get("RateLimit-Policy", ""))}
    left = {name: int(rest) for name, rest in STATE.findall(fields.get("RateLimit", ""))}
    if not quotas or not left:
        raise ProbeError("the answer has no RateLimit fields: has the customer of the key a rate?")
    for name, rest in left.items():
        if name not in quotas:
            raise ProbeError(f"RateLimit has {name!r}, and RateLimit-Policy has not")
        if rest > quotas[name]:
            raise ProbeError(f"{rest} of {quotas[name]} requests are left of {name!r}")


class Statement(NamedTuple):
    """A month's statement, in millicredits."""

    opening: int
    total: int
    """The sum of its lines."""
    closing: int
    purchases: tuple[tuple[str, int], ...]
    """The id and the amount of each purchase."""

    def check(self, balance: int) -> None:
        """Raise ProbeError unless the bookings add up to this balance."""
        if self.opening + self.total != self.closing:
            lines = f"its lines come to {self.total}, and it closes with {self.closing} millicredits"
            raise ProbeError(f"the statement opens with {self.opening}, {lines}")
        if self.closing != balance:
            raise ProbeError(f"the balance is {balance} millicredits, and what is booked comes to {self.closing}")


def parse_statement(body: bytes) -> Statement:
    """Parse the collector's response to `GET /billing/statements/MONTH`; raises ProbeError."""
    opening, closing = parse_numbers(body, "opening", "closing")
    lines = _parse_object(body).get("lines")
    total, purchases = 0, []
    for line in lines if isinstance(lines, list) else (None,):
        match line:
            case {"millicredits": int(amount), "kind": "purchase", "reference": str(reference)}:
                purchases.append((reference, amount))
            case {"millicredits": int(amount), "kind": str(kind)} if kind != "purchase":
                pass
            case _:
                raise ProbeError(NO_COLLECTOR)
        total += amount
    return Statement(opening, total, closing, tuple(purchases))


def parse_numbers(body: bytes, *names: str) -> tuple[int, ...]:
    """Return these whole numbers of the collector's response; raises ProbeError."""
    numbers = [value for value in map(_parse_object(body).get, names) if type(value) is int]
    if len(numbers) < len(names):
        raise ProbeError(NO_COLLECTOR)
    return tuple(numbers)


def parse_texts(body: bytes, *names: str) -> tuple[str, ...]:
    """Return these texts of the collector's response; raises ProbeError."""
    texts = [value for value in map(_parse_object(body).get, names) if isinstance(value, str)]
    if len(texts) < len(names):
        raise ProbeError(NO_COLLECTOR)
    return tuple(texts)


def parse_latest_month(body: bytes) -> str | None:
    """Return the latest month with statements in the collector, or None. Raises ProbeError."""
    match _parse_object(body).get("statements"):
        case []:
            return None
        case [str(month), *_]:
            return month
    raise ProbeError(NO_COLLECTOR)


def parse_total(body: bytes) -> int:
    """Return the total of the collector's response to `GET /v1/usage`, of all meters; raises ProbeError."""
    match _parse_object(body):
        case {"totals": dict(totals)}:
            amounts = list(totals.values())
        case {"total": total}:
            amounts = [total]
        case _:
            amounts = [None]
    if not all(isinstance(amount, int) for amount in amounts):
        raise ProbeError(NO_COLLECTOR)
    return sum(amounts)


def _parse_object(body: bytes) -> JsonObject:
    try:
        document = orjson.loads(body)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise ProbeError(NO_COLLECTOR)
    return document
