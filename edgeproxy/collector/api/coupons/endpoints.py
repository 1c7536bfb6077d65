"""The table of endpoints: coupons of subscriptions."""

from edgeproxy.collector.api.coupons.handlers import CouponHandlers
from edgeproxy.collector.api.coupons.models import CouponResponse, PutCouponRequest
from edgeproxy.collector.api.customer_billing import CustomerChangeQuery, CustomerQuery
from edgeproxy.collector.api.endpoint import BILLING, MONEY_READERS, OWN, UPDATE, Endpoint
from edgeproxy.collector.api.group import Group
from edgeproxy.collector.api.request_limits import RequestRate

ERRORS = {404: "Billing is not configured, or the customer, its subscription or a coupon of it does not exist."}
GROUP = Group(
    "coupons",
    "Coupons of subscriptions.",
    CouponHandlers,
    (
        Endpoint(
            "GET",
            "/billing/subscription/coupon",
            CouponHandlers.fetch_coupon,
            "Fetch the coupon of a customer's subscription.",
            roles=MONEY_READERS | OWN,
            query=CustomerQuery,
            response=CouponResponse,
            errors=ERRORS | {422: "The query names no customer."},
            rate=RequestRate(100, "customer"),
            own="the handler reads what is the customer's alone",
        ),
        Endpoint(
            "PUT",
            "/billing/subscription/coupon",
            CouponHandlers.put_coupon,
            "Give a subscription a coupon, starting with the current period.",
            roles=BILLING,
            query=CustomerChangeQuery,
            body=PutCouponRequest,
            response=CouponResponse,
            change=UPDATE,
            errors=ERRORS,
            rate=RequestRate(100, "customer"),
            example={"coupon": "LAUNCH20"},
        ),
        Endpoint(
            "DELETE",
            "/billing/subscription/coupon",
            CouponHandlers.delete_coupon,
            "End the coupon of a subscription with the current period.",
            roles=BILLING,
            query=CustomerChangeQuery,
            response=CouponResponse,
            change=UPDATE,
            errors=ERRORS,
            rate=RequestRate(100, "customer"),
        ),
    ),
)
