"""The roll-out of billing: the charged customers, and the gates of the next step."""

import time
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from typing_extensions import TypedDict

from edgeproxy.base.timestamps import format_timestamp
from edgeproxy.collector.accounts.fields import NOT_BLANK, refuse_blank
from edgeproxy.collector.api.cached_reports import CachedReport, ReportCache, ReportNotReadyError
from edgeproxy.collector.api.customer_billing import get_billing
from edgeproxy.collector.api.endpoint import BILLING, Call, Nothing, Query, get, put
from edgeproxy.collector.api.field_types import Boolean, exact
from edgeproxy.collector.api.group import Group, Handlers, Resources
from edgeproxy.collector.api.request_limits import RequestRate
from edgeproxy.collector.api.responses import ProblemError
from edgeproxy.collector.billing.reports import rollout_figures
from edgeproxy.collector.billing.rollout import charging, gates
from edgeproxy.collector.billing.rollout.charging import Charging, Waiver
from edgeproxy.collector.billing.rollout.gates import Gate, Mode, RolloutGate, Stage
from edgeproxy.collector.problems import billing_codes
from edgeproxy.config.collector.catalog import get_default_currency

Why = Annotated[str, Field(min_length=1, max_length=500, pattern=NOT_BLANK), BeforeValidator(refuse_blank)]
Message = Annotated[str, Field(min_length=1, max_length=200, pattern="^ *[!-~][ -~]*$"), BeforeValidator(refuse_blank)]


class UpdateRolloutRequest(BaseModel):
    """A change of the roll-out."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    percent: Annotated[int, exact(int, "a whole number from 0 to 100", 0, 100)] | None = None
    """The share of customers that is charged under `mode: live`, in percent."""
    force: Why | None = None
    """The reason for a step up despite closed gates."""
    charging: Boolean | None = None
    """False stops all charging from now on; true resumes it."""
    message: Message | None = None
    """The message for customers while charging is stopped."""
    why: Why
    """The reason, for the audit log."""


class Rollout(TypedDict):
    """The status of the roll-out: the customers that are charged now."""

    mode: Mode
    """`off`, `shadow` or `live`, as in the collector's file."""
    percent: int
    """The share of customers that is charged, in percent; 0 under `mode: shadow`."""
    file_percent: int
    """The upper bound of that share, from the collector's file."""
    allow: list[str]
    """The customers that are charged at any percentage, by name."""
    charging: bool
    """True if any customer is charged now."""
    message: str | None
    """The message for customers while charging is stopped; null otherwise."""
    stopped_by: str | None
    """The token or operator that stopped charging; null if charging is on."""
    gates: list[RolloutGate]
    """The gates of the next step up."""


class RolloutRequirements(Rollout):
    """The current and past roll-out, and the gates of the next step up. There are no gates if there is no such step."""

    gates_as_of: str | None
    """The time of the gates' figures; null while they are computed. No gates are listed then."""
    stage: Stage
    """`shadow`, `few` or `many`. The stage decides which gates there are."""
    since: str | None
    """The time since which this percentage is charged; null if none was set at run time."""
    is_stopped_by_file: bool
    """True if the collector's file stops charging. Then only a change of the file resumes it."""
    waivers: list[Waiver]
    """The times without charges, latest first."""


GATES_SECONDS = 60.0
"""Seconds until figures of gates are computed again. A step always uses current figures."""
WAIVERS_MAX = 20
"""Times without charging that are listed."""


class RolloutHandlers(Handlers):
    """Handlers of the roll-out."""

    def __init__(self, resources: Resources) -> None:
        super().__init__(resources)
        self._gates = ReportCache("gates of the roll-out", self._compute_gates, GATES_SECONDS)

    async def close(self) -> None:
        """Stop computing gates."""
        await self._gates.end()

    @get("/billing/rollout")
    async def fetch_rollout(self, _: Call[Query, Nothing]) -> RolloutRequirements:
        """Fetch the roll-out of billing: the charged customers, the gates of the next step, and past stops."""
        billing = get_billing(self._settings)
        async with self._database.reading(whole=True) as connection:
            now = await charging.fetch_charging(connection, billing)
            waivers = await charging.list_waivers(connection, WAIVERS_MAX)
        report: CachedReport[list[Gate]] | None = None
        try:
            report = await self._gates.get((now.percent, now.since))
        except ReportNotReadyError:
            pass
        return {
            **rollout_to_response(now, [] if report is None else report.value),
            "gates_as_of": None if report is None else format_timestamp(int(report.at * 1000)),
            "stage": gates.get_stage(now.percent),
            "since": format_timestamp(now.since * 1000) if now.since else None,
            "is_stopped_by_file": not charging.is_enabled(billing),
            "waivers": waivers,
        }

    @put(
        "/billing/rollout",
        example={"charging": False, "message": "billing is paused", "why": "an incident"},
        errors={409: "A gate is closed, the roll-out has changed meanwhile, or the collector's file stops charging."},
        is_sensitive=True,
    )
    async def update_rollout(self, call: Call[Query, UpdateRolloutRequest]) -> Rollout:
        """Update the roll-out of billing: charge more customers, fewer or none. A closed gate refuses a step up."""
        billing, body = get_billing(self._settings), call.body
        version, why = 0, body.why
        step_gates: list[Gate] = []
        if body.percent is not None:  # Before the transaction, because it may take long and batches would wait for it.
            now, step_gates = await self._evaluate_gates(body.percent)
            version = now.version
            closed = [gate for gate in step_gates if not gate.is_open]
            if closed and body.force is None:
                why = "; ".join(f"{gate.name}: {gate.figure}, required {gate.condition}" for gate in closed)
                raise ProblemError(
                    billing_codes.GATES_CLOSED, f"gates are closed: {why}. Wait, or send force with a reason"
                )
            if body.force is not None:
                why = f"{body.why}; forced past {len(closed)} gates: {body.force}"
        async with self._database.writing() as connection:
            if body.percent is not None:
                await charging.set_percent(connection, call.caller, billing, body.percent, why, frozenset({version}))
            if body.charging is False:
                await charging.stop_charging(connection, call.caller, body.message or charging.NO_CHARGE, body.why)
            elif body.charging is True:
                if not charging.is_enabled(billing):
                    raise ProblemError(
                        billing_codes.CHARGING_FIXED, "the collector's file stops charging: change it there, and reload"
                    )
                await charging.resume_charging(connection, call.caller, body.why)
            then = await charging.fetch_charging(connection, billing)
        return rollout_to_response(then, step_gates)

    async def _compute_gates(self, _: tuple[int, int]) -> list[Gate]:
        return (await self._evaluate_gates(gates.PERCENT_MAX))[1]

    async def _evaluate_gates(self, percent: int) -> tuple[Charging, list[Gate]]:
        """Return the customers who are charged, and the gates of a step to this percentage."""
        billing = get_billing(self._settings)
        async with self._database.reading(whole=True) as connection:
            now = await charging.fetch_charging(connection, billing)
            default = get_default_currency(self._settings.plans)
            figures = await rollout_figures.fetch_figures(connection, now, time.time(), billing, default)
        return now, gates.evaluate_gates(now.percent, percent, figures)


def rollout_to_response(now: Charging, step_gates: list[Gate]) -> Rollout:
    """Return the customers who are charged, and the gates of a step, in the API's form."""
    return {
        "mode": now.mode,
        "percent": now.percent,
        "file_percent": now.file_percent,
        "allow": sorted(now.allow),
        "charging": now.is_on,
        "message": now.message,
        "stopped_by": now.stopped_by,
        "gates": [gate.to_response() for gate in step_gates],
    }


GROUP = Group(
    "rollout",
    "The roll-out of billing: the charged customers, and the gates of the next step.",
    RolloutHandlers,
    roles=BILLING,
    rate=RequestRate(100, "customer"),
    errors={404: "Billing is not configured."},
)
