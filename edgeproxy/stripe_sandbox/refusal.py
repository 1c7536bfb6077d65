"""Errors as Stripe answers them."""

from collections.abc import Mapping
from typing import Any


class Refusal(Exception):
    """An answer that is an error: its status, and what `error` of its body says."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        code: str | None = None,
        param: str | None = None,
        commits: bool = False,
        headers: Mapping[str, str] | None = None,
        **more: Any,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.commits = commits
        """Whether what was done until then stays, as with a payment that was declined."""
        self.headers = dict(headers or {})
        said = {"code": code, "message": message, "param": param, "type": kind, **more}
        self.body = {"error": {name: value for name, value in said.items() if value is not None}}


def invalid(message: str, param: str | None = None, code: str | None = None) -> Refusal:
    """A 400: what was asked cannot be done."""
    return Refusal(400, message, code=code, param=param)


def missing(name: str, id: str, param: str | None = None) -> Refusal:
    """There is no such object: 404 where the path names it, 400 where the parameter `param` does."""
    return Refusal(
        404 if param is None else 400, f"No such {name}: '{id}'", code="resource_missing", param=param or "id"
    )


def unsupported(what: str, param: str | None = None) -> Refusal:
    """A 400 of the sandbox's own: Stripe can do this, the sandbox cannot."""
    return Refusal(400, f"The sandbox does not support {what}.", code="sandbox_unsupported", param=param)


def too_many(reason: str | None) -> Refusal:
    """A 429: for this reason, or because a lock was not had."""
    if reason is None:
        message = (
            "This object cannot be accessed right now because another API request or Stripe process is accessing it."
        )
        return Refusal(429, message, code="lock_timeout", headers={"Stripe-Should-Retry": "true"})
    return Refusal(
        429,
        "Request rate limit exceeded. Learn more about rate limits at https://docs.stripe.com/rate-limits.",
        kind="rate_limit_error",
        code="rate_limit",
        headers={"Stripe-Rate-Limited-Reason": reason},
    )
