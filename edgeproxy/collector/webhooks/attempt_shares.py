"""Shares of the attempts to send webhooks, so that silent receivers delay no other endpoint. Pure.

Each customer has a share of the attempts under way. Each receiver (a host and port) has a share as well, because many
customers may send to it. Retries and failing endpoints have one common share. All endpoints that are new, slow or
failing have another common share. So an endpoint with a recent prompt answer gets an attempt at once, regardless of
the other endpoints.
"""

from collections.abc import Iterable
from typing import NamedTuple
from urllib.parse import urlsplit

from edgeproxy.base.shares import ALL, Claim, Places, Share

CUSTOMER_SHARE = RECEIVER_SHARE = 1 / 5
"""The largest fraction of the attempts at once for one customer, and for one receiver."""
RETRIES = Share("retries", 1 / 2)
"""The share of attempts after the first one, and of attempts to endpoints that did not take the last message."""
UNPROVEN = Share("endpoints without a prompt answer", 9 / 10)
"""The share of attempts to endpoints that are new, slow or failing."""


class Candidate(NamedTuple):
    """A delivery that is due."""

    message: str
    endpoint: str
    customer: str
    """The id of the customer."""
    is_retry: bool
    """True if the delivery was tried before, or if its endpoint fails."""
    version: int
    """The version of the endpoint. Another version may have another receiver."""


class Choice(NamedTuple):
    """The candidates to try now, each with its claim, and the keys whose used-up shares delay other candidates."""

    chosen: list[tuple[Candidate, Claim]]
    exhausted: set[str]


def parse_receiver(url: str) -> str:
    """Return the host and port of a URL."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return f"{parts.hostname}:{port}"


def build_claim(candidate: Candidate, receiver: str, *, is_prompt: bool) -> Claim:
    """Return the shares that an attempt counts against. `is_prompt`: the endpoint's last answer was prompt."""
    claim = [Share(f"customer {candidate.customer}", CUSTOMER_SHARE)]
    if not is_prompt:
        claim += [Share(f"receiver {receiver}", RECEIVER_SHARE), UNPROVEN]
    if candidate.is_retry:
        claim.append(RETRIES)
    return tuple(claim)


def choose_candidates(candidates: Iterable[tuple[Candidate, Claim]], places: Places) -> Choice:
    """Take places for the candidates, in their order, as far as their shares allow."""
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
