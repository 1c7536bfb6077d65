"""The endpoints of prepaid credits and of the books, a row each, as `endpoints.py` has the others."""

from typing import Any

from edgeproxy.collector.api import credit_models as models
from edgeproxy.collector.api.billing_models import WhoseQuery
from edgeproxy.collector.api.change_fields import CREATES, IDEMPOTENCY_KEY
from edgeproxy.collector.api.endpoint import BILLING, CSV, MONEY_READERS, OWN, Endpoint
from edgeproxy.collector.api.handlers.credits import PDF, CreditHandlers
from edgeproxy.collector.api.request_limits import Often

READ, CHANGE = Often(100, "customer"), Often(10, "address")
OWN_ALONE = "the handler reads and changes what is the customer's alone"


def credit_endpoints(credits: CreditHandlers) -> tuple[Endpoint[Any, Any], ...]:
    """Return the rows."""
    reads: Any = {"query": WhoseQuery, "often": READ, "refuses": (404, 422), "own": OWN_ALONE}
    buys: Any = {
        "query": WhoseQuery,
        "often": CHANGE,
        "answers": models.StripeSession,
        "own": OWN_ALONE,
        "fields": IDEMPOTENCY_KEY,
        "status": 201,
        "refuses": (404, 409),
    }
    decides: Any = CREATES | {"sensitive": True, "often": READ, "refuses": (404, 409)}
    return (
        Endpoint(
            *(
                "GET",
                "/billing/balance",
                MONEY_READERS | OWN,
                credits.balance,
                "Fetch the credit balance of a customer.",
            ),
            **reads | {"query": models.BalanceQuery},
            answers=models.CreditBalanceResponse,
        ),
        Endpoint(
            *("GET", "/billing/statements", MONEY_READERS | OWN, credits.statements),
            "List the months that have a credit statement.",
            **reads,
            answers=models.CreditStatementList,
        ),
        Endpoint(
            *("GET", "/billing/statements/{month}", MONEY_READERS | OWN, credits.statement),
            "Fetch the credit statement of a month, as JSON, CSV or PDF.",
            **reads,
            answers=models.CreditStatement,
            gives=(CSV, PDF),
        ),
        Endpoint(
            *(
                "GET",
                "/billing/purchases",
                MONEY_READERS | OWN,
                credits.purchases,
                "List credit purchases, latest first.",
            ),
            **reads | {"query": models.PurchasesQuery},
            answers=models.CreditPurchaseList,
        ),
        Endpoint(
            *("GET", "/billing/purchases/{purchase}/receipt", MONEY_READERS | OWN, credits.receipt),
            "Redirect to the receipt of a purchase.",
            often=READ,
            status=303,
            shows=("Location",),
            refuses=(409,),
        ),
        Endpoint(
            *(
                "POST",
                "/billing/checkout",
                BILLING | OWN,
                credits.checkout,
                "Create a checkout session at Stripe, to buy credits.",
            ),
            **buys,
            sends=models.Checkout,
        ),
        Endpoint(
            *(
                "POST",
                "/billing/portal",
                BILLING | OWN,
                credits.portal,
                "Create a session of Stripe's customer portal.",
            ),
            **buys,
            sends=models.Portal,
        ),
        Endpoint(
            *("POST", "/billing/credits/adjust", BILLING, credits.adjust),
            "Adjust credits: give some, withdraw gifts, or return usage.",
            **decides,
            sends=models.CreateAdjustmentRequest,
            answers=models.CreditAdjustment,
        ),
        Endpoint(
            *("POST", "/billing/refunds", BILLING, credits.refund),
            "Refund a purchase: at most what is unspent of it.",
            **decides | {"status": 202, "refuses": (404, 409, 503)},
            sends=models.CreateRefundRequest,
            answers=models.Refund,
        ),
        Endpoint(
            *(
                "GET",
                "/billing/accounting/{date}",
                BILLING,
                credits.accounting,
                "Fetch the accounting journal of a day that is over.",
            ),
            query=models.AccountingQuery,
            answers=models.AccountingDay,
            gives=(CSV,),
            often=READ,
            refuses=(404, 409),
        ),
    )
