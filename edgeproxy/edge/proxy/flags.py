"""Who has a flag: by name, by tier, or in its share of all customers."""

import hashlib

from edgeproxy.config.customers import Flag


def has_flag(name: str, flag: Flag, tier: str, customer: str | None) -> bool:
    """Return whether a customer (None: nobody) of this tier has a flag: by name, by tier, or in its share of all
    customers.

    The share is stable: a customer who is in one percent is in two.
    """
    if tier in flag.tiers:
        return True
    if customer is None:
        return False
    return customer in flag.customers or compute_share_position(name, customer) < flag.percent / 100


def compute_share_position(flag: str, customer: str) -> float:
    """Return where a customer stands, from 0 to below 1, among all of them: by chance, for each flag another, and for
    ever."""
    digest = hashlib.blake2b(f"{flag}\0{customer}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64
