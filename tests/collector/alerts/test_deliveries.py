"""The states of a delivery: the steps of the table, and no others."""

import itertools

import pytest
import sqlalchemy as sa

from edgeproxy.collector.alerts.deliveries import TRANSITIONS, DeliveryState, DeliveryStateError, transition
from edgeproxy.collector.database.alert_tables import alert_deliveries
from edgeproxy.collector.database.database import Database
from tests.support.credited import run

STEPS = {("due", "due"), ("due", "sent"), ("due", "dead"), ("sent", "due"), ("dead", "due")}
ROW = {"alert": 1, "channel": "ops", "attempts": 0, "due_at": 0}


def test_each_state_has_its_row() -> None:
    assert {(before.value, after.value) for before, states in TRANSITIONS.items() for after in states} == STEPS
    assert set(TRANSITIONS) == set(DeliveryState)


@pytest.mark.both_databases
def test_alert_delivery_refuses_undefined_and_outdated_transitions(database: str) -> None:
    async def work(database: Database) -> None:
        for before, after in itertools.product(DeliveryState, DeliveryState):
            async with database.writing() as connection:
                await connection.execute(sa.delete(alert_deliveries))
                await connection.execute(sa.insert(alert_deliveries).values(**ROW, state=before))
                if (before, after) in STEPS:
                    await transition(connection, 1, "ops", before, after, attempts=1)
                    row = (await connection.execute(sa.select(alert_deliveries))).one()
                    assert (row.state, row.attempts) == (after, 1)
                    if before != after:
                        with pytest.raises(DeliveryStateError, match=f"is not {before} any more"):
                            await transition(connection, 1, "ops", before, after)
                else:
                    with pytest.raises(DeliveryStateError, match=f"from {before} to {after}"):
                        await transition(connection, 1, "ops", before, after)

    run(database, work)
