"""The table of endpoints: billing details."""

from edgeproxy.collector.api.billing_details.handlers import BillingDetailsHandlers
from edgeproxy.collector.api.billing_details.models import BillingDetails, UpdateBillingDetailsRequest
from edgeproxy.collector.api.customer_billing import CustomerQuery
from edgeproxy.collector.api.endpoint import BILLING, MONEY_READERS, OWN, Endpoint
from edgeproxy.collector.api.group import Group
from edgeproxy.collector.api.request_limits import RequestRate

GROUP = Group(
    "billing-details",
    "How customers pay, and the details on their invoices. Stripe stores them; the collector keeps a copy of the "
    "last answer.",
    BillingDetailsHandlers,
    (
        Endpoint(
            "GET",
            "/billing/details",
            BillingDetailsHandlers.fetch_details,
            "Fetch the billing details of a customer.",
            roles=MONEY_READERS | OWN,
            query=CustomerQuery,
            response=BillingDetails,
            errors={
                404: "Billing is not configured, or the customer does not exist.",
                422: "The query names no customer.",
            },
            rate=RequestRate(100, "customer"),
            own="the handler reads what is the customer's alone",
        ),
        Endpoint(
            "PATCH",
            "/billing/details",
            BillingDetailsHandlers.update_details,
            "Change the name, e-mail address, address or tax number on the invoices of a customer.",
            roles=BILLING | OWN,
            query=CustomerQuery,
            body=UpdateBillingDetailsRequest,
            response=BillingDetails,
            errors={
                404: "Billing is not configured, or the customer does not exist.",
                409: "Billing is off, the customer is being deleted, or Stripe refuses.",
            },
            rate=RequestRate(10, "customer"),
            own="the handler reads and changes what is the customer's alone",
            example={
                "name": "Acme B.V.",
                "address": {"line1": "Keizersgracht 1", "postal_code": "1015 CN", "city": "Amsterdam", "country": "NL"},
                "tax_number": "NL123456789B01",
            },
        ),
    ),
)
