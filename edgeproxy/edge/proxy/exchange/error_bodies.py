"""The form of a route's error bodies, by its settings."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from edgeproxy.config.edge.error_bodies import FORMATS_BY_USAGE, Errors
from edgeproxy.edge.http1.error_bodies import ANTHROPIC, OPENAI, ErrorBodies, TemplateErrors

if TYPE_CHECKING:
    from edgeproxy.config.edge.routes import Route

BODIES: dict[str, ErrorBodies | None] = {"problem": None, "openai": OPENAI, "anthropic": ANTHROPIC}
"""The form of errors by its name."""


def find_errors(route: "Route") -> Errors | None:
    """Return the `errors` of a route: its own, or the form of the API whose usage it reads.

    None: the top-level setting.
    """
    if route.errors is not None or route.response_usage is None:
        return route.errors
    usage = route.response_usage.format
    name = FORMATS_BY_USAGE.get(usage if isinstance(usage, str) else usage.like)
    return None if name is None else Errors(format=name)


def find_top_errors(errors: Errors | None, routes: "Iterable[Route]") -> Errors | None:
    """Return the errors of requests without a route: `errors` at the top, else those of the first route if all routes
    to upstreams have errors of an API.

    The library of OpenAI prints no reason of a problem, for example after a wrong `base_url`.
    """
    if errors is not None:
        return errors
    by_route = [find_errors(route) for route in routes if route.upstream is not None]
    return by_route[0] if by_route and all(each is not None and BODIES[each.format] for each in by_route) else None


def create_error_bodies(errors: Errors | None) -> ErrorBodies | None:
    """Create the form of these `errors`; None: problem details."""
    if errors is None:
        return None
    return BODIES[errors.format] if errors.text is None else TemplateErrors(errors.text, errors.media_type)
