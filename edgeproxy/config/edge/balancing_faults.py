"""Checks of the affinity of upstreams."""

from collections.abc import Iterator

from edgeproxy.config.edge.balancing import CHOSEN_BY_CLIENTS, SECRET_CHARACTERS_MIN
from edgeproxy.config.references import Fault, list_members
from edgeproxy.config.tree import Table

A_SECRET = 'write secret: "${AFFINITY_SECRET}"'


def find_faults(tree: Table) -> Iterator[Fault]:
    """Find a `balance` of two kinds or of none, and one that lets clients choose their endpoint."""
    for path, upstream in list_members(tree, "upstreams"):
        balance = upstream.get("balance")
        if not isinstance(balance, Table):
            continue
        at, hashed, secret = (*path, "balance"), balance.get("hash"), balance.get("secret")
        cookie = None if balance.get("cookie") == "none" else balance.get("cookie")
        if (hashed is None) == (cookie is None):
            what = "has neither hash nor cookie" if hashed is None else "has both hash and cookie"
            yield Fault(at, what, "write one of them, or leave balance out")
        elif not isinstance(secret, str) or not secret:
            if cookie is not None or str(hashed).startswith(CHOSEN_BY_CLIENTS):
                yield Fault(at, "would let clients choose their endpoint", A_SECRET)
        elif len(secret) < SECRET_CHARACTERS_MIN:
            what = f"has {len(secret)} characters, fewer than {SECRET_CHARACTERS_MIN}"
            yield Fault((*at, "secret"), what, "openssl rand -hex 16 makes one")
