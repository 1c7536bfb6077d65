"""The table of endpoints: rollout."""

from edgeproxy.collector.api.endpoint import BILLING, Endpoint
from edgeproxy.collector.api.group import Group
from edgeproxy.collector.api.request_limits import RequestRate
from edgeproxy.collector.api.rollout.handlers import RolloutHandlers
from edgeproxy.collector.api.rollout.models import Rollout, RolloutRequirements, UpdateRolloutRequest

GROUP = Group(
    "rollout",
    "The roll-out of billing: the charged customers, and the gates of the next step.",
    RolloutHandlers,
    (
        Endpoint(
            "GET",
            "/billing/rollout",
            RolloutHandlers.fetch_rollout,
            "Fetch the roll-out of billing: the charged customers, the gates of the next step, and past stops.",
            roles=BILLING,
            response=RolloutRequirements,
            errors={404: "Billing is not configured."},
            rate=RequestRate(100, "customer"),
        ),
        Endpoint(
            "PUT",
            "/billing/rollout",
            RolloutHandlers.update_rollout,
            "Update the roll-out of billing: charge more customers, fewer or none. A closed gate refuses a step up.",
            roles=BILLING,
            body=UpdateRolloutRequest,
            response=Rollout,
            errors={
                404: "Billing is not configured.",
                409: "A gate is closed, the roll-out has changed meanwhile, or the collector's file stops charging.",
            },
            is_sensitive=True,
            rate=RequestRate(100, "customer"),
            example={"charging": False, "message": "billing is paused", "why": "an incident"},
        ),
    ),
)
