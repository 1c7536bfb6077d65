"""The table of endpoints: invoices."""

from edgeproxy.collector.api.endpoint import BILLING, CREATE, MONEY_READERS, OWN, Endpoint
from edgeproxy.collector.api.field_types import ChangeQuery
from edgeproxy.collector.api.group import Group, PathParameter
from edgeproxy.collector.api.invoices.handlers import InvoiceHandlers
from edgeproxy.collector.api.invoices.models import (
    CreateCreditNoteRequest,
    CreditNoteResponse,
    InvoicesQuery,
    ReasonRequest,
    UpcomingInvoiceResponse,
    UpcomingQuery,
)
from edgeproxy.collector.api.request_limits import RequestRate
from edgeproxy.collector.billing.invoices import invoices
from edgeproxy.collector.billing.invoices.invoices import Invoice, InvoiceList

GROUP = Group(
    "invoices",
    "Invoices and credit notes. Amounts are cents.",
    InvoiceHandlers,
    (
        Endpoint(
            "GET",
            "/billing/invoices",
            InvoiceHandlers.list_invoices,
            "List invoices, newest first, without their lines.",
            roles=MONEY_READERS | OWN,
            query=InvoicesQuery,
            response=InvoiceList,
            errors={404: "Nothing is sold here, or the customer does not exist."},
            rate=RequestRate(100, "customer"),
            own="the handler lists those of the customer alone",
        ),
        Endpoint(
            "GET",
            "/billing/invoices/upcoming",
            InvoiceHandlers.preview_invoice,
            "Preview the next invoice as of now and, if the query asks, at the pace of the last seven days.",
            roles=MONEY_READERS | OWN,
            query=UpcomingQuery,
            response=UpcomingInvoiceResponse,
            errors={
                404: "Nothing is sold here, or the customer or its subscription does not exist.",
                422: "The query names no customer, or the usage of the period is not stored any more.",
            },
            rate=RequestRate(100, "customer"),
            own="the handler reads and changes what is the customer's alone",
        ),
        Endpoint(
            "GET",
            "/billing/invoices/{invoice}",
            InvoiceHandlers.fetch_invoice,
            "Fetch an invoice with its lines.",
            roles=MONEY_READERS | OWN,
            response=Invoice,
            rate=RequestRate(100, "customer"),
        ),
        Endpoint(
            "GET",
            "/billing/invoices/{invoice}/pdf",
            InvoiceHandlers.redirect_to_pdf,
            "Redirect to the PDF of an invoice.",
            roles=MONEY_READERS | OWN,
            status=303,
            response_headers=("Location",),
            errors={409: "The invoice is not open yet, so it has no PDF."},
            rate=RequestRate(100, "customer"),
        ),
        Endpoint(
            "POST",
            "/billing/invoices/{invoice}/hold",
            InvoiceHandlers.hold_invoice,
            "Hold a draft invoice: it is not sent until it is accepted.",
            roles=BILLING,
            body=ReasonRequest,
            response=Invoice,
            errors={409: "The invoice is not a draft."},
            is_sensitive=True,
            rate=RequestRate(100, "customer"),
        ),
        Endpoint(
            "POST",
            "/billing/invoices/{invoice}/accept",
            InvoiceHandlers.accept_invoice,
            "Accept a held invoice: it is sent as it is.",
            roles=BILLING,
            body=ReasonRequest,
            response=Invoice,
            errors={409: "The invoice is not held."},
            is_sensitive=True,
            rate=RequestRate(100, "customer"),
        ),
        Endpoint(
            "POST",
            "/billing/invoices/{invoice}/void",
            InvoiceHandlers.void_invoice,
            "Void an invoice that is held or open.",
            roles=BILLING,
            body=ReasonRequest,
            response=Invoice,
            errors={409: "The invoice is neither held nor open."},
            is_sensitive=True,
            rate=RequestRate(100, "customer"),
        ),
        Endpoint(
            "POST",
            "/billing/invoices/{invoice}/credit",
            InvoiceHandlers.create_credit_note,
            "Create a credit note for an invoice that is open or paid.",
            roles=BILLING,
            query=ChangeQuery,
            body=CreateCreditNoteRequest,
            response=CreditNoteResponse,
            status=201,
            change=CREATE,
            is_sensitive=True,
            rate=RequestRate(100, "customer"),
        ),
    ),
    parameters={"invoice": PathParameter("The id of the invoice.", find_owner=invoices.find_owner)},
)
