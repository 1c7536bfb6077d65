"""The endpoints of figures that take long to work out, a row each, as `endpoints.py` has the others."""

from typing import Any

from edgeproxy.collector.api import figure_models as models
from edgeproxy.collector.api.endpoint import BILLING, READERS, Endpoint
from edgeproxy.collector.api.handlers.figures import FigureHandlers


def figure_endpoints(figures: FigureHandlers) -> tuple[Endpoint[Any, Any], ...]:
    """Return the rows."""
    return (
        Endpoint(
            *("GET", "/billing/executive", BILLING, figures.executive),
            "Report revenue, cost and margin; the answer is 429 until they are computed.",
            query=models.ExecutiveQuery,
            answers=models.BusinessReport,
            refuses=(404, 429),
        ),
        Endpoint(
            *("GET", "/v1/refusals", READERS, figures.refusals),
            "Report the customers and limits with most refusals; the answer is 429 until they are computed.",
            query=models.RefusalsQuery,
            answers=models.RefusalReport,
            refuses=(429,),
        ),
    )
