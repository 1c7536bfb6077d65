"""The table of endpoints: checks."""

from edgeproxy.collector.api.checks.handlers import CheckHandlers
from edgeproxy.collector.api.checks.models import BaselineList, CheckResult
from edgeproxy.collector.api.endpoint import READERS, SUPPORT, Endpoint
from edgeproxy.collector.api.group import CUSTOMER, Group
from edgeproxy.collector.api.request_limits import RequestRate

GROUP = Group(
    "checks",
    "Checks of usage and spending that an operator runs now, and their baselines.",
    CheckHandlers,
    (
        Endpoint(
            "POST",
            "/v1/checks",
            CheckHandlers.run_checks,
            "Judge the usage of completed hours and days, and compare this hour's spending with the usual, now.",
            roles=SUPPORT,
            response=CheckResult,
            rate=RequestRate(6, "customer"),
        ),
        Endpoint(
            "GET",
            "/v1/customers/{customer}/baselines",
            CheckHandlers.list_baselines,
            "List the baselines of a customer. Its usage is compared with them.",
            roles=READERS,
            response=BaselineList,
        ),
    ),
    parameters={"customer": CUSTOMER},
)
