"""A subscription takes the steps of its table alone, and none from a state that it is not in any more."""

from pathlib import Path

import pytest

from edgeproxy.collector.billing.subscriptions.subscription_rows import (
    TRANSITIONS,
    SubscriptionStateError,
    get_by_customer,
    transition,
)
from tests.support.sold import sold

NOW = 1_800_000_000.0


async def test_a_subscription_takes_no_step_that_the_table_has_not(sqlite_database: str, tmp_path: Path) -> None:
    assert {state: set(after) for state, after in TRANSITIONS.items()} == {
        "trialing": {"trialing", "active", "canceled"},
        "active": {"active", "canceled"},
        "canceled": {"active"},
    }

    async with sold(tmp_path, sqlite_database, "http://127.0.0.1:9") as (shop, _):
        await shop.customer("acme", "free", now=NOW)
        async with shop.database.writing() as connection:
            row = (await get_by_customer(connection, "acme")).row
            changed = await transition(connection, row, "active", cancel_at=7)
            assert (changed.state, changed.cancel_at, changed.version) == ("active", 7, 2)
            with pytest.raises(SubscriptionStateError, match="has changed meanwhile"):
                await transition(connection, row, "canceled")
            over = await transition(connection, changed, "canceled")
            for state in ("trialing", "canceled"):
                with pytest.raises(SubscriptionStateError, match=f"from canceled to {state}"):
                    await transition(connection, over, state)
