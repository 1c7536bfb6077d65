"""The table of endpoints: reports."""

from edgeproxy.collector.api.endpoint import BILLING, CSV, Endpoint
from edgeproxy.collector.api.group import Group, PathParameter
from edgeproxy.collector.api.reports.handlers import ReportHandlers
from edgeproxy.collector.api.reports.models import (
    AccountingDay,
    AccountingQuery,
    BusinessReport,
    BusinessReportQuery,
    RatingReport,
    RatingReportQuery,
    ReconciliationList,
    ReconciliationQuery,
)
from edgeproxy.collector.api.request_limits import RequestRate

GROUP = Group(
    "reports",
    "Reconciliation, accounting and business figures.",
    ReportHandlers,
    (
        Endpoint(
            "GET",
            "/billing/reconciliation",
            ReportHandlers.list_reconciliations,
            "List reconciliations, with advice for each row that differs.",
            roles=BILLING,
            query=ReconciliationQuery,
            response=ReconciliationList,
            errors={404: "Billing is not configured."},
            rate=RequestRate(100, "customer"),
        ),
        Endpoint(
            "GET",
            "/billing/report",
            ReportHandlers.compare_ratings,
            "Compare the shadow rating of all usage with the amounts charged.",
            roles=BILLING,
            query=RatingReportQuery,
            response=RatingReport,
            errors={404: "Billing is not configured."},
            rate=RequestRate(100, "customer"),
        ),
        Endpoint(
            "GET",
            "/billing/accounting/{date}",
            ReportHandlers.fetch_accounting,
            "Fetch the accounting journal of a completed day.",
            roles=BILLING,
            query=AccountingQuery,
            response=AccountingDay,
            response_media=(CSV,),
            errors={404: "Billing is not configured, or the day does not exist.", 409: "The day is not over."},
            rate=RequestRate(100, "customer"),
        ),
        Endpoint(
            "GET",
            "/billing/executive",
            ReportHandlers.fetch_business_report,
            "Report revenue, cost and margin. The answer is 429 until they are computed.",
            roles=BILLING,
            query=BusinessReportQuery,
            response=BusinessReport,
            errors={
                404: "Billing is not configured.",
                429: "The report is being computed. Retry-After says when to try again.",
            },
        ),
    ),
    parameters={"date": PathParameter("The day in UTC, such as 2027-01-31.")},
)
