"""A check of existing edges before a load: whether they know the keys, and their limits in `RateLimit-Policy`.

It sends one request for each tier and region.
"""

import re
from collections.abc import Iterator, Mapping
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from random import Random
from typing import NamedTuple
from urllib.parse import urlsplit

from loadtest.replay import SAFE
from loadtest.requests import Template, fill
from loadtest.workload import Workload

POLICY = re.compile(r'"[^"]*"((?:;\s*[a-z]+="?[^;,"]*"?)*)')
ANSWER = 10.0
"""Seconds for an answer."""
USUAL = Template(1.0, "GET /v1/x", "GET", "/v1/x", {}, b"")


class Policy(NamedTuple):
    """A limit in an answer: requests, and the seconds of its window."""

    quota: int
    window: float


class UnusableKeyError(Exception):
    """An edge rejects a customer of the workload; the message names the customer and the answer."""


def read_policies(field: str) -> list[Policy]:
    """Return the policies of a `RateLimit-Policy` field that have a quota and a window."""
    found = []
    for parameters in POLICY.findall(field):
        values = dict(re.findall(r';\s*([a-z]+)="?([^;,"]*)"?', parameters))
        try:
            found.append(Policy(int(values["q"]), float(values["w"])))
        except (KeyError, ValueError):
            continue
    return found


def find_differences(
    workload: Workload, edges: Mapping[str, str], keys: Mapping[str, str]
) -> dict[tuple[str, str], str]:
    """Send each edge a request for each tier with a limit. Returns deviating limits by region and tier.

    Raises UnusableKeyError if an edge does not know a key. An edge that states no limit, or does not answer, is not
    judged here.
    """
    template = next((template for template in workload.templates() or [USUAL] if template.method in SAFE), None)
    found: dict[tuple[str, str], str] = {}
    if template is None:
        return found
    for region, url in edges.items():
        for name, limit in _list_limited(workload):
            customer = f"{name}-0"
            status, field = _ask(url, template, customer, keys.get(customer) or f"key-of-{customer}")
            if status == 401:
                raise UnusableKeyError(f"{customer} at {region}: {url} answered 401, it knows no such key (--keys)")
            policies = read_policies(field)
            if policies and limit not in policies:
                text = " and ".join(f"{policy.quota} in {policy.window:g} s" for policy in policies)
                found[region, name] = text
    return found


def _list_limited(workload: Workload) -> Iterator[tuple[str, Policy]]:
    """Yield the tiers whose customers have keys and a limit."""
    for name, tier in workload.tiers.items():
        if name in workload.limits and not tier.addresses:
            yield name, Policy(*workload.limits[name])


def _ask(url: str, template: Template, customer: str, key: str) -> tuple[int, str]:
    """Return the status of an answer, and its policies; (0, "") without an answer."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    connection = kind(parts.hostname, parts.port, timeout=ANSWER)
    filled = fill(template, customer, key, Random(customer))
    try:
        connection.request(template.method, parts.path + filled.path, headers=filled.headers)
        answer = connection.getresponse()
        return answer.status, answer.headers.get("RateLimit-Policy", "")
    except (OSError, HTTPException):
        return 0, ""
    finally:
        connection.close()
