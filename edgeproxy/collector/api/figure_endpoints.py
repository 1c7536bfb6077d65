"""The endpoints of figures that take long to work out, a row each, as `endpoints.py` has the others."""

from typing import Any

from edgeproxy.collector.api import figure_models as models
from edgeproxy.collector.api.endpoint import BILLING, READERS, Endpoint
from edgeproxy.collector.api.handlers.figures import FigureHandlers


def figure_endpoints(figures: FigureHandlers) -> tuple[Endpoint[Any, Any], ...]:
    """List them."""
    return (
        Endpoint(
            *("GET", "/billing/executive", BILLING, figures.executive),
            "Revenue, cost and margin by day, the week's largest and the month; 429 until they are worked out.",
            query=models.ExecutiveQuery,
            answers=models.BusinessReport,
            refuses=(404, 429),
        ),
        Endpoint(
            *("GET", "/v1/refusals", READERS, figures.refusals),
            "Who was refused most, and by which limits; 429 until that is worked out.",
            query=models.RefusalsQuery,
            answers=models.RefusalReport,
            refuses=(429,),
        ),
    )
