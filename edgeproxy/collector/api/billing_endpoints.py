"""The endpoints of billing, a row each, as `endpoints.py` has the others."""

from typing import Any

from edgeproxy.collector.api import billing_models as models
from edgeproxy.collector.api.change_fields import CHANGES, CREATES
from edgeproxy.collector.api.endpoint import ANYONE, API_USERS, BILLING, MONEY_READERS, OWN, Endpoint
from edgeproxy.collector.api.handlers.billing import BillingHandlers
from edgeproxy.collector.api.request_limits import Often
from edgeproxy.collector.billing.invoices.invoices import Invoice, InvoiceList
from edgeproxy.collector.billing.subscriptions.subscriptions import Subscription

PUBLIC, READ, CHANGE = Often(100, "address"), Often(100, "customer"), Often(10, "address")
SUBSCRIPTION, INVOICES = "/billing/subscription", "/billing/invoices"
AN_INVOICE = f"{INVOICES}/{{invoice}}"
READS: Any = {"query": models.WhoseQuery, "often": READ, "refuses": (404, 422)}
OWN_ALONE = "the handler reads and changes what is the customer's alone"


def billing_endpoints(billing: BillingHandlers) -> tuple[Endpoint[Any, Any], ...]:
    """Return the rows."""
    changes = CHANGES | {"query": models.WhoseChangeQuery, "often": CHANGE, "refuses": (404, 409, 412, 422)}
    creates = CREATES | {"query": models.WhoseChangeQuery, "often": CHANGE, "refuses": (404, 409, 422)}
    decides: Any = {
        "sends": models.ReasonRequest,
        "answers": Invoice,
        "sensitive": True,
        "often": READ,
        "refuses": (409,),
    }
    return (
        Endpoint(
            *("GET", "/billing/plans", ANYONE, billing.plans, "List the plans that are sold."),
            serve=API_USERS,
            answers=models.PlanList,
            often=PUBLIC,
            refuses=(404,),
        ),
        Endpoint(
            *(
                "GET",
                "/billing/status",
                ANYONE,
                billing.status,
                "Fetch the status of billing: whether customers can buy, and are charged.",
            ),
            serve=API_USERS,
            answers=models.BillingStatusResponse,
            often=PUBLIC,
            refuses=(404,),
        ),
        Endpoint(
            *("GET", SUBSCRIPTION, MONEY_READERS | OWN, billing.subscription, "Fetch the subscription of a customer."),
            **READS,
            answers=Subscription,
            shows=("ETag",),
            own=OWN_ALONE,
        ),
        Endpoint(
            *(
                "POST",
                SUBSCRIPTION,
                BILLING | OWN,
                billing.subscribe,
                "Create a subscription; its first fee is due at once.",
            ),
            **creates,
            sends=models.CreateSubscriptionRequest,
            answers=Subscription,
            own=OWN_ALONE,
        ),
        Endpoint(
            *("PUT", SUBSCRIPTION, BILLING | OWN, billing.change, "Change a subscription to another plan."),
            **changes,
            sends=models.UpdateSubscriptionRequest,
            answers=Subscription,
            own=OWN_ALONE,
        ),
        Endpoint(
            *("DELETE", SUBSCRIPTION, BILLING | OWN, billing.cancel),
            "Cancel a subscription at the end of its paid period, or now.",
            **(changes | {"query": models.CancelQuery}),
            answers=Subscription,
            own=OWN_ALONE,
        ),
        Endpoint(
            *("POST", f"{SUBSCRIPTION}/preview", BILLING | OWN, billing.preview),
            "Preview the cost of a change or a new subscription; nothing is changed.",
            **(READS | {"often": CHANGE, "refuses": (404, 409, 422)}),
            sends=models.PreviewSubscriptionRequest,
            answers=models.SubscriptionPreview,
            own=OWN_ALONE,
        ),
        Endpoint(
            *("POST", "/billing/upgrade", BILLING | OWN, billing.upgrade),
            "Upgrade a subscription at once to the plan with this tier.",
            **(changes | {"query": models.UpgradeQuery}),
            answers=Subscription,
            own=OWN_ALONE,
        ),
        Endpoint(
            *(
                "GET",
                "/billing/usage",
                MONEY_READERS | OWN,
                billing.usage,
                "Report the usage of this period, of all meters that the plan bills or caps.",
            ),
            **READS,
            answers=models.BilledUsage,
            own=OWN_ALONE,
        ),
        Endpoint(
            *(
                "GET",
                "/billing/usage/{meter}",
                MONEY_READERS | OWN,
                billing.usage_of,
                "Report the usage of a meter in this period.",
            ),
            **READS,
            answers=models.BilledUsage,
            own=OWN_ALONE,
        ),
        Endpoint(
            *("GET", "/billing/quotas", MONEY_READERS | OWN, billing.quotas),
            "Report the usage of this period of meters that the plan caps.",
            **READS,
            answers=models.BilledUsage,
            own=OWN_ALONE,
        ),
        Endpoint(
            *(
                "GET",
                INVOICES,
                MONEY_READERS | OWN,
                billing.invoices,
                "List invoices, newest first, without their lines.",
            ),
            **(READS | {"query": models.InvoicesQuery}),
            answers=InvoiceList,
            own="the handler lists those of the customer alone",
        ),
        Endpoint(
            *("GET", f"{INVOICES}/upcoming", MONEY_READERS | OWN, billing.upcoming),
            "Preview the next invoice as of now and, if the query asks, at the pace of the last seven days.",
            **(READS | {"query": models.UpcomingQuery}),
            answers=models.UpcomingInvoiceResponse,
            own=OWN_ALONE,
        ),
        Endpoint(
            *("GET", AN_INVOICE, MONEY_READERS | OWN, billing.invoice, "Fetch an invoice with its lines."),
            often=READ,
            answers=Invoice,
        ),
        Endpoint(
            *("GET", f"{AN_INVOICE}/pdf", MONEY_READERS | OWN, billing.pdf, "Redirect to the PDF of an invoice."),
            often=READ,
            status=303,
            shows=("Location",),
            refuses=(409,),
        ),
        Endpoint(
            *("POST", f"{AN_INVOICE}/hold", BILLING, billing.hold),
            "Hold a draft invoice: it is not sent until it is accepted.",
            **decides,
        ),
        Endpoint(
            *("POST", f"{AN_INVOICE}/accept", BILLING, billing.accept, "Accept a held invoice: it is sent as it is."),
            **decides,
        ),
        Endpoint(
            *("POST", f"{AN_INVOICE}/void", BILLING, billing.void, "Void an invoice that is held or open."), **decides
        ),
        Endpoint(
            *(
                "POST",
                f"{AN_INVOICE}/credit",
                BILLING,
                billing.credit,
                "Create a credit note for an invoice that is open or paid.",
            ),
            **(
                CREATES
                | {
                    "sends": models.CreateCreditNoteRequest,
                    "answers": models.CreditNoteResponse,
                    "sensitive": True,
                    "often": READ,
                }
                | {"refuses": (409, 422)}
            ),
        ),
    )
