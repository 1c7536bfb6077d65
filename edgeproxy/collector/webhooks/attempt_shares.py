"""Shares of the attempts to send webhooks, so that silent receivers keep nobody else waiting. Pure.

A customer has a share of the attempts under way, and so has a receiver (a host and port) to which many customers send.
Retries and failing endpoints have a share together. The endpoints that are new, slow or failing have one together, so
an endpoint that answered promptly of late finds an attempt at once, whatever others do.
"""

from collections.abc import Iterable
from typing import NamedTuple
from urllib.parse import urlsplit

from edgeproxy.base.shares import ALL, Claim, Places, Share

CUSTOMER_SHARE = RECEIVER_SHARE = 1 / 5
"""The fractions of the attempts at once that one customer, and one receiver, gets at most."""
RETRIES = Share("retries", 1 / 2)
"""The share of attempts after the first one, and to endpoints that took nothing the last time."""
UNPROVEN = Share("endpoints without a prompt answer", 9 / 10)
"""The share of endpoints that are new, slow or failing."""


class Candidate(NamedTuple):
    """A delivery that is due."""

    message: str
    endpoint: str
    customer: str
    """The id of the customer."""
    is_retry: bool
    """Whether the delivery was tried before, or its endpoint fails."""
    version: int
    """The version of the endpoint: another one may have another receiver."""


class Choice(NamedTuple):
    """The candidates to try now, each with its claim, and the keys whose shares kept others waiting."""

    chosen: list[tuple[Candidate, Claim]]
    exhausted: set[str]


def parse_receiver(url: str) -> str:
    """Return the host and port of a URL."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return f"{parts.hostname}:{port}"


def build_claim(candidate: Candidate, receiver: str, *, is_prompt: bool) -> Claim:
    """Return the shares that an attempt takes from; `is_prompt`: its endpoint has answered promptly of late."""
    claim = [Share(f"customer {candidate.customer}", CUSTOMER_SHARE)]
    if not is_prompt:
        claim += [Share(f"receiver {receiver}", RECEIVER_SHARE), UNPROVEN]
    if candidate.is_retry:
        claim.append(RETRIES)
    return tuple(claim)


def choose_candidates(candidates: Iterable[tuple[Candidate, Claim]], places: Places) -> Choice:
    """Take places for candidates, in their order, as far as their shares allow."""
    choice = Choice([], set())
    for candidate, claim in candidates:
        key = places.find_exhausted(claim)
        if key is None:
            places.take(claim)
            choice.chosen.append((candidate, claim))
            continue
        choice.exhausted.add(key)
        if key == ALL:
            break
    return choice
