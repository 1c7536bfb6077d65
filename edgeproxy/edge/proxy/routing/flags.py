"""Customers that have a flag: by name, by tier, or by its share of all customers."""

import hashlib

from edgeproxy.config.customers import Flag


def has_flag(name: str, flag: Flag, tier: str, customer: str | None) -> bool:
    """Return whether a customer (None: anonymous) of this tier has a flag: by name, by tier, or by the flag's share.

    The share is stable: a customer who is in one percent is in two.
    """
    if tier in flag.tiers:
        return True
    if customer is None:
        return False
    return customer in flag.customers or compute_share_position(name, customer) < flag.percent / 100


def compute_share_position(flag: str, customer: str) -> float:
    """Return the position of a customer among all, from 0 to below 1: random, different for each flag, and
    permanent.
    """
    digest = hashlib.blake2b(f"{flag}\0{customer}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64
