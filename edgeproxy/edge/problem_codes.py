"""The table of the edge's problems. Every error that an edge answers has a code of it. Pure.

An error has the code of its status, unless the place that raises it states one of the codes in SPECIFIC.
"""

from collections.abc import Mapping
from typing import Final, Literal

from edgeproxy.base.problem_codes import ProblemCode

GENERAL: Final = {
    code.status: code
    for code in (
        ProblemCode(
            "request-malformed", 400, "The request is malformed, or ambiguous.", "Correct what `detail` names."
        ),
        ProblemCode("key-invalid", 401, "The key, token or certificate is not accepted.", "Send a valid one."),
        ProblemCode("payment-required", 402, "The customer is paused until a payment.", "Pay what is due."),
        ProblemCode("request-denied", 403, "The request is not permitted.", "Ask the provider."),
        ProblemCode("route-not-found", 404, "No route leads to this path.", "Check the host and the path."),
        ProblemCode("method-not-routed", 405, "The route has other methods. `Allow` lists them.", "Use one of them."),
        ProblemCode("request-too-slow", 408, "The request did not arrive in time.", "Send it again, without pauses."),
        ProblemCode("length-required", 411, "The service needs a `Content-Length`.", "Send the length of the body."),
        ProblemCode("content-too-large", 413, "The body is larger than the service accepts.", "Send a smaller body."),
        ProblemCode("target-too-long", 414, "The request line is too long.", "Shorten the path or the query."),
        ProblemCode(
            "coding-unsupported", 415, "The service needs a body without compression.", "Send the body uncompressed."
        ),
        ProblemCode(
            "expectation-unknown", 417, "`Expect` has another value than `100-continue`.", "Leave the field out."
        ),
        ProblemCode(
            "misdirected", 421, "The connection or the address is not for this host.", "Use the address of the host."
        ),
        ProblemCode("rate-exceeded", 429, "A rate limit is reached.", "Wait for `Retry-After`."),
        ProblemCode("fields-too-large", 431, "The header fields are too long, or too many.", "Send fewer fields."),
        ProblemCode("edge-failed", 500, "The edge failed. Its log has the cause.", "Try again."),
        ProblemCode("not-implemented", 501, "The edge forwards no such method or transfer coding.", "Use another one."),
        ProblemCode(
            "upstream-failed",
            502,
            "The service's answer is unusable. `Proxy-Status` has the kind.",
            "Try again.",
        ),
        ProblemCode("edge-busy", 503, "The edge has no room for the request.", "Try again after `Retry-After`."),
        ProblemCode("upstream-timeout", 504, "The service did not answer in time.", "Try again."),
        ProblemCode("version-unsupported", 505, "The edge speaks another version of HTTP.", "Use HTTP/1.1 or HTTP/2."),
    )
}
"""The codes of statuses."""

KEY_MISSING: Final = ProblemCode(
    "key-missing", 401, "The request has no key.", "Send the key, as `detail` and `WWW-Authenticate` describe."
)
KEY_UNKNOWN: Final = ProblemCode(
    "key-unknown", 401, "The key, token or certificate is not known.", "Check it, or make a new key."
)
KEY_EXPIRED: Final = ProblemCode(
    "key-expired", 401, "The key, token or certificate has expired.", "Renew it, or make a new key."
)
TOKEN_INVALID: Final = ProblemCode(
    "jwt-invalid", 401, "The token is not one of an issuer that is trusted here.", "Sign in again."
)
PASSWORD_INVALID: Final = ProblemCode(
    "password-invalid", 401, "The user name or the password is wrong.", "Send valid ones."
)
TOKEN_REVOKED: Final = ProblemCode("token-revoked", 401, "The token was revoked.", "Sign in again.")
CREDITS_SPENT: Final = ProblemCode(
    "credits-spent", 402, "The credits that were paid in advance are spent.", "Buy credits: waiting does not help."
)
CUSTOMER_PAUSED: Final = ProblemCode("customer-paused", 403, "The customer is paused.", "Ask the provider.")
SCOPE_MISSING: Final = ProblemCode(
    "scope-missing", 403, "The key lacks a scope of the route.", "Use a key with the scope that `detail` names."
)
REGION_DENIED: Final = ProblemCode(
    "region-denied", 403, "The customer is not served in this region.", "Use the address of an allowed region."
)
ADDRESS_DENIED: Final = ProblemCode(
    "address-denied", 403, "The key, the route or the edge is not for this address.", "Send from an allowed address."
)
RULE_DENIED: Final = ProblemCode("rule-denied", 403, "A rule refuses the request.", "Ask the provider.")
ORIGIN_DENIED: Final = ProblemCode(
    "origin-denied", 403, "Pages of this origin may not call the route.", "Have the origin added to `cors`."
)
CUSTOMER_UNKNOWN: Final = ProblemCode(
    "customer-unknown", 403, "The token names no customer or tier of this edge.", "Ask the provider."
)
ADMIN_NOT_FOUND: Final = ProblemCode(
    "admin-not-found", 404, "The admin listener has no such path, or no such customer.", "Check the name."
)
CONCURRENCY_EXCEEDED: Final = ProblemCode(
    "concurrency-exceeded", 429, "Too many requests are under way at once.", "Try again when one has ended."
)
CONNECTIONS_EXCEEDED: Final = ProblemCode(
    "connections-exceeded", 429, "The address has too many connections.", "Close some, or reuse them."
)
PASSWORDS_EXCEEDED: Final = ProblemCode(
    "passwords-exceeded", 429, "Too many passwords of the address are being checked.", "Wait for `Retry-After`."
)
QUOTA_EXCEEDED: Final = ProblemCode("quota-exceeded", 429, "The quota is used up.", "Wait until `limit.ends_at`.")
PLAN_EXCEEDED: Final = ProblemCode(
    "plan-exceeded", 429, "The amount that the plan includes is used up.", "Upgrade, or wait until `limit.ends_at`."
)
CAP_EXCEEDED: Final = ProblemCode("cap-exceeded", 429, "The spending cap is reached.", "Wait, or raise the cap.")
BUDGET_EXCEEDED: Final = ProblemCode(
    "budget-exceeded", 429, "The budget of the key is used up.", "Wait until `limit.ends_at`, or raise the budget."
)
CUSTOMER_DATA_UNAVAILABLE: Final = ProblemCode(
    "customer-data-unavailable",
    503,
    "The edge does not know the customer yet.",
    "Try again after `Retry-After`.",
)
UPSTREAM_UNAVAILABLE: Final = ProblemCode(
    "upstream-unavailable", 503, "No endpoint of the service is up, or too many requests wait.", "Try again later."
)

SPECIFIC: Final = tuple(code for code in tuple(globals().values()) if isinstance(code, ProblemCode))
"""The codes that places state."""
CODES: Final = {code.name: code for code in (*GENERAL.values(), *SPECIFIC)}
"""Every code by its name."""

KeyFault = Literal["missing", "unknown", "expired", "token", "revoked", "password"]
"""A reason why a request has no known key: a label of `edge_auth_failures_total`."""
BY_KEY_FAULT: Final[Mapping[KeyFault, ProblemCode]] = {
    "missing": KEY_MISSING,
    "unknown": KEY_UNKNOWN,
    "expired": KEY_EXPIRED,
    "token": TOKEN_INVALID,
    "revoked": TOKEN_REVOKED,
    "password": PASSWORD_INVALID,
}
"""The code of each reason."""
BY_LIMIT: Final = {
    "rate": GENERAL[429],
    "concurrency": CONCURRENCY_EXCEEDED,
    "quota": QUOTA_EXCEEDED,
    "plan": PLAN_EXCEEDED,
    "cap": CAP_EXCEEDED,
    "budget": BUDGET_EXCEEDED,
    "credits": CREDITS_SPENT,
}
"""The codes for the kinds of limits that refuse."""
BY_CONNECTION_FAULT: Final = {"network": ADDRESS_DENIED, "address": CONNECTIONS_EXCEEDED, "rate": CONNECTIONS_EXCEEDED}
"""The codes for the reasons why a connection is refused; of the others it is the one of the status."""
