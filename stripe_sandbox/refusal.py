"""Errors in the form of Stripe's."""

from collections.abc import Mapping

from stripe_sandbox.json_values import JsonValue

SANDBOX_CODE = "sandbox_unsupported"
"""The code for requests that Stripe supports and the sandbox does not."""

DOCUMENTATION = "https://stripe.com/docs/error-codes/"
"""The start of Stripe's documentation of an error, by its code."""


class ApiError(Exception):
    """An error response: its status, and `error` of its body."""

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
        **more: JsonValue,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.commits = commits
        """Commit the transaction even though the request failed, as for a declined payment."""
        self.headers = dict(headers or {})
        fields = {"code": code, "message": message, "param": param, "type": kind, **more}
        if code not in (None, SANDBOX_CODE) and kind.endswith("_error"):  # Errors of v2 have no such URL.
            fields["doc_url"] = DOCUMENTATION + code.replace("_", "-")
        self.body = {"error": {name: value for name, value in fields.items() if value is not None}}


def invalid_request(message: str, param: str | None = None, code: str | None = None) -> ApiError:
    """Build a 400: the request cannot be done."""
    return ApiError(400, message, code=code, param=param)


def no_such_object(name: str, id: str, param: str | None = None) -> ApiError:
    """Build the refusal of an unknown object: 404 if the path names it, 400 if the parameter `param` does."""
    return ApiError(
        404 if param is None else 400, f"No such {name}: '{id}'", code="resource_missing", param=param or "id"
    )


def unsupported(what: str, param: str | None = None) -> ApiError:
    """Build a 400 of the sandbox's own: Stripe supports this, the sandbox does not."""
    return ApiError(400, f"The sandbox does not support {what}.", code=SANDBOX_CODE, param=param)


def too_many_requests(reason: str | None) -> ApiError:
    """Build a 429 with this reason, or of a lock timeout."""
    if reason is None:
        message = (
            "This object cannot be accessed right now because another API request or Stripe process is accessing it."
        )
        return ApiError(429, message, code="lock_timeout", headers={"Stripe-Should-Retry": "true"})
    return ApiError(
        429,
        "Request rate limit exceeded. Learn more about rate limits at https://docs.stripe.com/rate-limits.",
        kind="rate_limit_error",
        code="rate_limit",
        headers={"Stripe-Rate-Limited-Reason": reason},
    )
