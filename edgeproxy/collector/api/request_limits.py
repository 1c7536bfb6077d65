"""Limits of endpoints: request rates by the algorithm of edges, and concurrency. They apply to this process only."""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal, NamedTuple
from weakref import WeakValueDictionary

from edgeproxy.base.addresses import subject_of
from edgeproxy.edge.counters.private_table import private_table
from edgeproxy.edge.limits.policies import Policies
from edgeproxy.edge.limits.policy import Policy
from edgeproxy.edge.limits.rule import Rule

SUBJECTS_MAX = 4096
"""Subjects counted exactly. Further subjects share counters."""
MINUTE = 60.0


class RequestRate(NamedTuple):
    """The requests per minute that an endpoint accepts, per client address or per customer."""

    requests: int
    by: Literal["address", "customer"]


def format_subject(address: str) -> str:
    """Return an address's subject for limits: IPv4 itself or the /64 of IPv6. A customer usually has a whole /64."""
    return subject_of(address).hex()


class CustomerTurns:
    """Limits concurrent slow reads of each customer. Further requests of the customer wait.

    So a customer leaves connections to others, however many requests it sends.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._semaphores: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    @asynccontextmanager
    async def take(self, customer: str | None) -> AsyncIterator[None]:
        """Wait for a customer's turn, and hold it. None is for staff, who never wait."""
        if customer is None:
            yield
            return
        semaphore = self._semaphores.setdefault(customer, asyncio.Semaphore(self._most))
        async with semaphore:
            yield


class RequestLimits:
    """The limits of one collector."""

    def __init__(self) -> None:
        self._policies = Policies(private_table(SUBJECTS_MAX))
        self._held: OrderedDict[tuple[str, str], Policy] = OrderedDict()

    def wait(self, group: str, often: RequestRate, subject: str, now: float) -> int:
        """Count a request at the Unix second `now` and return 0, or return the seconds to wait without counting.

        Endpoints of a `group` are counted together.
        """
        key = (f"{group} {often.requests}", subject)
        policy = self._held.get(key)
        if policy is None:
            rule = Rule("requests", often.requests, MINUTE, "ip")
            policy = self._held[key] = self._policies.get_policy(rule, " ".join(key).encode())
            if len(self._held) > SUBJECTS_MAX:
                self._held.popitem(last=False)
        self._held.move_to_end(key)
        seconds = policy.retry_after(now)
        if not seconds:
            policy.charge()
        return seconds
