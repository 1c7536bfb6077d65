"""Who was made at Stripe by a try whose answer is lost is found, and each customer is read about once."""

import asyncio
from typing import Any

from edgeproxy.billing.payers import CLOCK_SECONDS, CUSTOMER, OVERLAP_SECONDS, Made

NOON = 1_800_000_000


class Listing:
    """Stripe, of which only the list of customers is asked."""

    def __init__(self) -> None:
        self.customers: list[dict[str, Any]] = []
        self.asked: list[int] = []

    def make(self, ours: str | None, created: int) -> None:
        metadata = {} if ours is None else {CUSTOMER: ours}
        more = {"created": created, "livemode": False, "metadata": metadata}
        self.customers.insert(0, {"id": f"cus_{len(self.customers)}", **more})

    async def every(self, name: str, /, created: dict[str, int]) -> list[dict[str, Any]]:
        self.asked.append(created["gte"])
        return [one for one in self.customers if one["created"] >= created["gte"]]


def test_a_look_goes_on_from_the_one_before() -> None:
    stripe = Listing()
    made = Made(stripe)  # type: ignore[arg-type]

    async def find(ours: str, since: int = NOON) -> str | None:
        found = await made.find(ours, since)
        return None if found is None else str(found["id"])

    async def work() -> None:
        stripe.make("early", NOON - 2 * CLOCK_SECONDS)
        stripe.make("first", NOON)
        stripe.make(None, NOON + 500)
        assert await find("first") == "cus_1"
        assert await find("second", NOON + 100) is None
        stripe.make("second", NOON + 500 - OVERLAP_SECONDS)
        assert await find("second", NOON + 100) == "cus_3", "it is listed later than one that was made after it"
        assert await find("first") == "cus_1", "it is known from before"
        assert await find("early", NOON - 2 * CLOCK_SECONDS) == "cus_0", "who looks further back reads all from there"
        later = NOON + 500 - OVERLAP_SECONDS
        assert stripe.asked == [NOON - CLOCK_SECONDS, later, later, later, NOON - 3 * CLOCK_SECONDS]

    asyncio.run(work())
