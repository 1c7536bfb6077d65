"""Whether anybody is charged now, and who: the configuration, and what people have said since at run time.

While nothing is charged service goes on: what is used then is counted and waived for ever, and edges serve customers
who were paused for a payment. Rates and hard caps stay.
"""

import time
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.accounts import audit, documents
from edgeproxy.collector.accounts.audit import Caller, Entry
from edgeproxy.collector.accounts.change import Refused, must_match
from edgeproxy.collector.accounts.ids import moment
from edgeproxy.collector.alerts.alert import Alert, raise_once
from edgeproxy.collector.billing.rating.rater import Span
from edgeproxy.collector.billing.rollout.gates import Mode, is_charged
from edgeproxy.collector.database.credit_tables import credit_balances
from edgeproxy.collector.database.delivery_tables import rollout, waivers
from edgeproxy.collector.database.schema import MINUTE, customers
from edgeproxy.config.billing import Billing
from edgeproxy.config.directory import FREE

CONFIGURATION = Caller("configuration")
"""Who stops charging by what the file says."""
LASTING = 1 << 40
"""The end of a time that lasts."""
NO_CHARGE = "Billing is paused: what you use now is free."
"""What customers are told where nobody has said anything else."""


class Charging(NamedTuple):
    """Who is charged now."""

    mode: Mode
    percent: int
    allow: frozenset[str]
    is_on: bool
    message: str | None
    """What customers are told; None while somebody is charged."""
    stopped_by: str | None
    since: int
    """The Unix second since which so many percent are charged."""
    version: int
    credits_meter: str | None = None
    """What edges take to spend prepaid credits."""

    def charges(self, customer: str) -> bool:
        """Whether this customer, by name, is charged for what it uses now."""
        return self.is_on and self.bills(customer)

    def bills(self, customer: str) -> bool:
        """Whether this customer is among those who are charged, stopped or not."""
        return is_charged(customer, self.mode, self.percent, self.allow)


async def read(connection: AsyncConnection, billing: Billing) -> Charging:
    """Return who is charged now."""
    row = (await connection.execute(sa.select(rollout))).one()
    percent = billing.rollout.percent if row.percent is None else row.percent
    allow = frozenset(billing.rollout.allow)
    is_on = bool(row.charging) and says_on(billing)
    message = None if is_on else row.message or billing.rollout.stop or NO_CHARGE
    stopped, since = row.stopped_by, row.since
    return Charging(billing.mode, percent, allow, is_on, message, stopped, since, row.version, row.credits_meter)


async def stop(connection: AsyncConnection, caller: Caller, message: str, why: str) -> None:
    """Charge nobody from this minute on; raises Refused where nobody is charged already."""
    row = await _locked(connection)
    if not row.charging:
        raise Refused(409, f"nobody is charged already: {row.stopped_by} has stopped it")
    now = time.time()
    since = int(now) // MINUTE * MINUTE
    values = {"charging": 0, "stopped_by": caller.actor, "message": message, "version": row.version + 1}
    await connection.execute(sa.update(rollout).values(values))
    # One that ended in this same minute goes on.
    same = (await connection.execute(sa.select(waivers.c.since).where(waivers.c.until > since))).scalar_one_or_none()
    if same is None:
        waiver = {"since": since, "until": None, "who": caller.actor, "why": why}
        await connection.execute(sa.insert(waivers), [waiver])
    else:
        await connection.execute(sa.update(waivers).where(waivers.c.since == same).values(until=None))
    await _tell_edges(connection)
    before, after = {"charging": True}, {"charging": False, "message": message, "why": why}
    await audit.append(connection, caller, Entry("billing.stop", "billing", before, after))
    await raise_once(
        connection,
        Alert(
            key=f"billing-stopped-{row.version + 1}",
            kind="billing_stopped",
            severity="page",
            title=f"Nobody is charged any more: {why}",
            details={"who": caller.actor},
            at=now,
        ),
    )


async def resume(connection: AsyncConnection, caller: Caller, why: str) -> None:
    """Charge again from the next minute on; raises Refused where somebody is charged already."""
    row = await _locked(connection)
    if row.charging:
        raise Refused(409, "customers are charged already")
    until = int(time.time()) // MINUTE * MINUTE + MINUTE
    values = {"charging": 1, "stopped_by": None, "message": None, "version": row.version + 1}
    await connection.execute(sa.update(rollout).values(values))
    await connection.execute(sa.update(waivers).where(waivers.c.until.is_(None)).values(until=until))
    # What edges have counted of credits since was partly waived: they begin anew.
    await _tell_edges(connection, customers.c.id.in_(sa.select(credit_balances.c.customer)))
    before, after = {"charging": False}, {"charging": True, "why": why}
    await audit.append(connection, caller, Entry("billing.resume", "billing", before, after))


async def set_percent(
    connection: AsyncConnection, caller: Caller, percent: int, why: str, wanted: frozenset[int] | None = None
) -> None:
    """Charge so many percent of customers from now on. Whether that may be is for the gates."""
    row = await _locked(connection)
    must_match(row.version, wanted)
    values = {"percent": percent, "since": int(time.time()), "version": row.version + 1}
    await connection.execute(sa.update(rollout).values(values))
    before, after = {"percent": row.percent}, {"percent": percent, "why": why}
    await audit.append(connection, caller, Entry("billing.rollout", "billing", before, after))


async def follow(connection: AsyncConnection, billing: Billing) -> None:
    """Do what the file says about charging: `charging: off` and `rollout.stop` stop it, and their end resumes it unless
    somebody has stopped it at run time. Edges are told what spends credits.
    """
    row = (await connection.execute(sa.select(rollout))).one()
    if row.credits_meter != _credits_meter(billing):
        await connection.execute(sa.update(rollout).values(credits_meter=_credits_meter(billing)))
        payers = customers.join(credit_balances, credit_balances.c.customer == customers.c.id)
        names = (await connection.execute(sa.select(customers.c.name).select_from(payers))).scalars()
        await documents.note(connection, "customer", list(names))
    if row.charging and not says_on(billing):
        await stop(connection, CONFIGURATION, billing.rollout.stop or NO_CHARGE, "the configuration says so")
    elif not row.charging and says_on(billing) and row.stopped_by == CONFIGURATION.actor:
        await resume(connection, CONFIGURATION, "the configuration says so")


WAIVED = sa.select(waivers.c.since, waivers.c.until).order_by(waivers.c.since)


async def waived(connection: AsyncConnection) -> list[Span]:
    """Return the times in which nothing was charged; one that lasts has no end that matters."""
    found = await connection.execute(WAIVED)
    return [Span(since, LASTING if until is None else until) for since, until in found]


async def waivers_told(connection: AsyncConnection, limit: int) -> list[dict[str, Any]]:
    """Tell of the times in which nothing was charged, the latest first."""
    rows = await connection.execute(sa.select(waivers).order_by(waivers.c.since.desc()).limit(limit))
    return [
        {
            "since": moment(row.since * 1000),
            "until": None if row.until is None else moment(row.until * 1000),
            "who": row.who,
            "why": row.why,
        }
        for row in rows
    ]


async def waived_of(connection: AsyncConnection, span: Span) -> list[Span]:
    """Return what of a time nothing was charged for."""
    cut = (Span(max(one.start, span.start), min(one.end, span.end)) for one in await waived(connection))
    return [one for one in cut if one.start < one.end]


def says_on(billing: Billing) -> bool:
    """Whether the file lets anybody be charged."""
    return billing.charging and billing.rollout.stop is None


def _credits_meter(billing: Billing) -> str | None:
    return None if billing.credits is None else billing.credits.meter


def is_behind(now: Charging, billing: Billing) -> bool:
    """Whether `follow` has something to do."""
    if now.credits_meter != _credits_meter(billing):
        return True
    if now.stopped_by is None:
        return not says_on(billing)
    return now.stopped_by == CONFIGURATION.actor and says_on(billing)


async def _locked(connection: AsyncConnection) -> sa.Row[Any]:
    return (await connection.execute(sa.select(rollout).with_for_update())).one()


async def _tell_edges(connection: AsyncConnection, *also: sa.ColumnElement[bool]) -> None:
    """Have edges hear that what is about money holds nobody, or that it does again, and of all who were paused for a
    payment: they are served, or paused again."""
    await documents.note(connection, "flag", [FREE])
    unpaid = sa.select(customers.c.name).where(sa.or_(customers.c.settings.like('%"status":402%'), *also))
    await documents.note(connection, "customer", list((await connection.execute(unpaid)).scalars()))
