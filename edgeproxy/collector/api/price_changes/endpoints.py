"""The table of endpoints: price changes."""

from edgeproxy.collector.api.customer_billing import CustomerQuery
from edgeproxy.collector.api.endpoint import BILLING, CREATE, MONEY_READERS, OWN, Endpoint
from edgeproxy.collector.api.field_types import ChangeQuery
from edgeproxy.collector.api.group import Group, PathParameter
from edgeproxy.collector.api.price_changes.handlers import PriceChangeHandlers
from edgeproxy.collector.api.price_changes.models import (
    PlanVersionList,
    PriceChangeList,
    PriceChangeResponse,
    PriceChangesQuery,
    SchedulePriceChangeRequest,
    SubscribedPlanResponse,
    WithdrawPriceChangeRequest,
)
from edgeproxy.collector.api.request_limits import RequestRate

PLANS = """\
plans:
  standard@2:
    fee: "109"
    meters: {api_calls: {included: 100000, price: "0.002"}}
"""
NOT_SOLD = "Billing is not configured."

GROUP = Group(
    "price-changes",
    "New versions of plans. Subscribers move to them from a set time on. Amounts are in the smallest unit, such "
    "as cents.",
    PriceChangeHandlers,
    (
        Endpoint(
            "GET",
            "/billing/price-changes",
            PriceChangeHandlers.list_changes,
            "List price changes, newest first.",
            roles=MONEY_READERS,
            query=PriceChangesQuery,
            response=PriceChangeList,
            errors={404: NOT_SOLD},
            rate=RequestRate(100, "customer"),
        ),
        Endpoint(
            "POST",
            "/billing/price-changes",
            PriceChangeHandlers.schedule_change,
            "Schedule a price change. A dry run shows the cost of each subscriber's last full period under it.",
            roles=BILLING,
            query=ChangeQuery,
            body=SchedulePriceChangeRequest,
            response=PriceChangeResponse,
            status=201,
            change=CREATE,
            errors={404: NOT_SOLD, 409: "The price change differs from the dry run, or others are changing it now."},
            is_sensitive=True,
            rate=RequestRate(10, "address"),
            example={"plans": PLANS, "at": "2099-01-01", "why": "prices of 2099"},
        ),
        Endpoint(
            "GET",
            "/billing/price-changes/{change}",
            PriceChangeHandlers.fetch_change,
            "Fetch a price change and, while it is scheduled, its effect on each subscriber.",
            roles=MONEY_READERS,
            response=PriceChangeResponse,
            rate=RequestRate(10, "address"),
        ),
        Endpoint(
            "POST",
            "/billing/price-changes/{change}/withdraw",
            PriceChangeHandlers.withdraw_change,
            "Withdraw a price change, up to a minute before its time.",
            roles=BILLING,
            query=ChangeQuery,
            body=WithdrawPriceChangeRequest,
            response=PriceChangeResponse,
            change=CREATE,
            errors={409: "The price change is done or withdrawn already."},
            is_sensitive=True,
            rate=RequestRate(100, "customer"),
            example={"why": "prices stay"},
        ),
        Endpoint(
            "GET",
            "/billing/plan-versions",
            PriceChangeHandlers.list_versions,
            "List all recorded versions of plans, with their subscribers.",
            roles=MONEY_READERS,
            response=PlanVersionList,
            errors={404: NOT_SOLD},
            rate=RequestRate(100, "customer"),
        ),
        Endpoint(
            "GET",
            "/billing/subscription/plan",
            PriceChangeHandlers.fetch_subscribed_plan,
            "Fetch the terms of a customer's plan, and the terms after the next price change.",
            roles=MONEY_READERS | OWN,
            query=CustomerQuery,
            response=SubscribedPlanResponse,
            errors={
                404: "Billing is not configured, or the customer or its subscription does not exist.",
                422: "The query names no customer.",
            },
            rate=RequestRate(100, "customer"),
            own="the handler reads what is the customer's alone",
        ),
    ),
    parameters={"change": PathParameter("The id of the price change.")},
)
