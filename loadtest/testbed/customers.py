"""The people of the tests' configurations: each customer has one key, made of its name."""

import hashlib
from typing import Any

from loadtest.testbed.waiting import SLOWNESS

MINUTE = "min" if SLOWNESS == 1 else f"{60 * SLOWNESS:g}s"
"""The window of a limit a minute: longer where all takes longer, so that a test of one window is over in it."""
WINDOW = 55.0 * SLOWNESS
"""Seconds in which a test of one window of a minute has to be over."""
TIERS: dict[str, Any] = {
    "basic": {"limits": [{"rate": f"60/{MINUTE}"}]},
    "pro": {"limits": [{"rate": f"600/{MINUTE}"}]},
    "free": {"limits": []},
    "own": {"limits": []},
}
UNLIMITED = "umbra"
"""A customer without limits, in every configuration."""


def key_of(customer: str) -> str:
    """The key that this customer sends."""
    return f"key-of-{customer}"


def key_line(customer: str, **fields: object) -> dict[str, object]:
    """The entry of this customer's key under `keys`."""
    return {"sha256": hashlib.sha256(key_of(customer).encode()).hexdigest(), "customer": customer, **fields}


def people(**customers: str | list[str]) -> dict[str, Any]:
    """`tiers`, `customers` and `keys` for these: the name of a tier, or the rates that they have of their own."""
    described: dict[str, Any] = {UNLIMITED: {"tier": "free"}}
    for name, plan in customers.items():
        if isinstance(plan, str):
            described[name] = {"tier": plan}
        else:
            described[name] = {"tier": "own", "limits": [{"rate": rate} for rate in plan]}
    return {"tiers": TIERS, "customers": described, "keys": [key_line(name) for name in described]}
