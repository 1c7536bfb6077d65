"""The problems of requests of every kind, and of their callers."""

from typing import Final

from edgeproxy.base.problem_codes import ProblemCode
from edgeproxy.collector.languages.marks import N_

REQUEST_INVALID: Final = ProblemCode(
    "request-invalid",
    400,
    "The request cannot be read.",
    "Compare it with the API's page.",
    N_("That cannot be understood"),
)
QUERY_INVALID: Final = ProblemCode(
    "query-invalid",
    400,
    "A parameter of the query, or of the path, cannot be used.",
    "Correct the parameter that `detail` names.",
    N_("A part of the address cannot be used."),
    has_reason=True,
)
BODY_NOT_JSON: Final = ProblemCode("body-not-json", 400, "The body is not JSON.", "Send one JSON object.")
BODY_INVALID: Final = ProblemCode(
    "body-invalid",
    422,
    "The body is JSON, but not the object or the value that the endpoint takes.",
    "Send what the API's page shows for the endpoint.",
)
BODY_UNREADABLE: Final = ProblemCode(
    "body-unreadable", 400, "The body cannot be decoded.", "Send it in the form and coding that the API's page names."
)
BODY_TOO_LARGE: Final = ProblemCode("body-too-large", 413, "The body has too many bytes.", "Send less at once.")
BODY_TOO_SLOW: Final = ProblemCode("body-too-slow", 408, "The body took too long.", "Send it again, without pauses.")
MEDIA_TYPE_UNSUPPORTED: Final = ProblemCode(
    "media-type-unsupported",
    415,
    "The body has another media type or coding than the endpoint takes.",
    "Send `application/json` without a `Content-Encoding`, or what the API's page names.",
)
EXPECTATION_UNSUPPORTED: Final = ProblemCode(
    "expectation-unsupported", 417, "The request has an `Expect` other than `100-continue`.", "Leave the field out."
)
FIELDS_INVALID: Final = ProblemCode(
    "fields-invalid",
    422,
    "Fields of the body, or a parameter, cannot be used. `errors` lists them.",
    "Correct the fields by their codes.",
    N_("Some fields cannot be used."),
)
PATH_NOT_FOUND: Final = ProblemCode(
    "path-not-found", 404, "There is no such path.", "Compare it with `GET /v1/openapi.json`."
)
METHOD_NOT_ALLOWED: Final = ProblemCode(
    "method-not-allowed", 405, "The path has other methods. `Allow` lists them.", "Use one of them."
)
CALLS_EXCEEDED: Final = ProblemCode(
    "calls-exceeded",
    429,
    "The caller has called this endpoint too often.",
    "Wait for `Retry-After`.",
    N_("This was asked too often. Try again in a minute."),
)
CHANGES_EXCEEDED: Final = ProblemCode(
    "changes-exceeded",
    429,
    "The caller has made too many changes in a minute.",
    "Wait for `Retry-After`.",
    N_("This was asked too often. Try again in a minute."),
)
EXPORTS_BUSY: Final = ProblemCode(
    "exports-busy",
    429,
    "As many exports are under way as there may be.",
    "Wait for `Retry-After`.",
    N_("As many downloads are under way as there may be. Try again in a minute."),
)
DOWNLOAD_BUSY: Final = ProblemCode(
    "download-busy",
    429,
    "The same download is under way.",
    "Wait until it has ended.",
    N_("This download is under way already. Try again in a minute."),
)
REPORT_NOT_READY: Final = ProblemCode(
    "report-not-ready",
    429,
    "The figures are being computed.",
    "Wait for `Retry-After`.",
    N_("The figures are being computed. Try again in a moment."),
)
BATCHES_BUSY: Final = ProblemCode(
    "batches-busy", 429, "More batches wait than the collector can hold.", "Wait for `Retry-After`; an edge does."
)
EVENTS_BUSY: Final = ProblemCode(
    "events-busy",
    429,
    "More events wait than the collector can hold.",
    "Wait for `Retry-After`, and send the same events again.",
)
EDGES_FULL: Final = ProblemCode(
    "edges-full",
    429,
    "The collector takes no further edge, or this edge has too much in quarantine.",
    "Wait for `Retry-After`, and have an operator look at the alert.",
)
DATABASE_UNAVAILABLE: Final = ProblemCode(
    "database-unavailable",
    503,
    "The database does not answer.",
    "Try again after `Retry-After`.",
    N_("The data cannot be had now. Try again in a minute."),
)
CONCURRENT_CHANGES: Final = ProblemCode(
    "concurrent-changes",
    503,
    "Others change the same at this moment.",
    "Try again after `Retry-After`.",
    N_("Others are changing the same now. Try again."),
)
ROW_UNREADABLE: Final = ProblemCode(
    "row-unreadable",
    500,
    "A stored row cannot be read.",
    "Have an operator look at the alert that names it.",
    N_("Something stored cannot be read. The provider knows about it."),
)
INTERNAL_ERROR: Final = ProblemCode(
    "internal-error",
    500,
    "The collector failed. Its log has the cause.",
    "Try again; if it stays, report the id of the request.",
    N_("Something went wrong here"),
)
IDEMPOTENCY_KEY_INVALID: Final = ProblemCode(
    "idempotency-key-invalid",
    400,
    "The `Idempotency-Key` is empty or too long, or has other characters than visible ones.",
    "Send 1 to 255 visible characters, such as a UUID.",
    N_("The form is not whole: open the page again."),
)
IDEMPOTENCY_KEY_REUSED: Final = ProblemCode(
    "idempotency-key-reused",
    422,
    "The `Idempotency-Key` came with another request before.",
    "Use a new key for a new request.",
    N_("The form was sent before with other values. Open the page again."),
)
IDEMPOTENT_ANSWER_LOST: Final = ProblemCode(
    "idempotent-answer-lost",
    409,
    "The answer to this `Idempotency-Key` was stored, and cannot be read any more.",
    "Read the object; then decide whether to send a new request.",
    N_("Something stored cannot be read. The provider knows about it."),
)
IF_MATCH_INVALID: Final = ProblemCode(
    "if-match-invalid",
    400,
    "`If-Match` is no ETag.",
    'Send the `ETag` of the answer that you read, such as `"3"`.',
    N_("The form is not whole: open the page again."),
)
VERSION_CHANGED: Final = ProblemCode(
    "version-changed",
    412,
    "The object has changed since it was read.",
    "Read it again, and repeat the change.",
    N_("It has changed meanwhile. Look at it again."),
)
CHANGED_MEANWHILE: Final = ProblemCode(
    "changed-meanwhile",
    409,
    "The object has changed during the request.",
    "Read it again, and repeat the change.",
    N_("It has changed meanwhile. Look at it again."),
)
NOT_CONFIGURED: Final = ProblemCode(
    "not-configured",
    404,
    "The collector's file does not set up this feature.",
    "Ask an operator; `detail` names the setting.",
    N_("The provider has not set this up."),
    has_reason=True,
)
TOKEN_MISSING: Final = ProblemCode(
    "token-missing", 401, "The request has no token.", "Send `Authorization: Bearer TOKEN`.", N_("Sign in again")
)
TOKEN_INVALID: Final = ProblemCode(
    "token-invalid",
    401,
    "The token is not known, or has expired.",
    "Use a valid token, or make a new one.",
    N_("Sign in again"),
)
SIGN_IN_TOO_OLD: Final = ProblemCode(
    "sign-in-too-old",
    401,
    "The operation is sensitive, and the last sign-in was too long ago.",
    "Sign in again.",
    N_("This asks for a sign-in within the last 10 minutes."),
)
SECOND_FACTOR_NEEDED: Final = ProblemCode(
    "second-factor-needed",
    401,
    "The operation is sensitive, and no second factor was shown recently.",
    "Sign in with a second factor.",
    N_("This asks for a second factor, shown within the last minutes."),
)
ROLE_DENIED: Final = ProblemCode(
    "role-denied",
    403,
    "The caller's role does not permit the operation.",
    "Use a token with one of the roles on the API's page.",
    N_("Your role does not allow this."),
)
ROLE_MISSING: Final = ProblemCode(
    "role-missing",
    403,
    "The issuer's token names no role of this collector.",
    "Have the issuer add the person to a group of the settings.",
    N_("Your role does not allow this."),
)
EMAIL_UNVERIFIED: Final = ProblemCode(
    "email-unverified",
    403,
    "The issuer has not confirmed the person's e-mail address.",
    "Confirm the address at the issuer.",
    N_("The issuer has not confirmed your e-mail address."),
)
LISTENER_DENIED: Final = ProblemCode(
    "listener-denied",
    403,
    "The listener does not serve this caller.",
    "Use the listener for its role, or have its `allow` or `serve` changed.",
    N_("This address is not for you. Use the one that your provider gave you."),
)
CONSENT_MISSING: Final = ProblemCode(
    "consent-missing",
    403,
    "The operation is sensitive, and the token may not do it.",
    "Write `sensitive: true` beside the token in the collector's file.",
    N_("Your role does not allow this."),
)
OTHER_CUSTOMER: Final = ProblemCode(
    "other-customer",
    403,
    "The caller is bound to another customer.",
    "Name the caller's own customer.",
    N_("Your role does not allow this."),
)
OTHER_EDGE: Final = ProblemCode(
    "other-edge", 403, "The token, or the edge, is bound to another one.", "Ship with the token of this edge."
)
OTHER_REGION: Final = ProblemCode(
    "other-region", 403, "The token is bound to another region.", "Ship with a token of this region."
)
OTHER_RESIDENCY: Final = ProblemCode(
    "other-residency", 403, "The batch is of another residency.", "Ship it to the collector of its residency."
)
CERTIFICATE_MISSING: Final = ProblemCode(
    "certificate-missing",
    403,
    "The edge shows no certificate of the collector's `client_ca`.",
    "Set `usage.tls` of the edge.",
)
SCOPE_TOO_WIDE: Final = ProblemCode(
    "scope-too-wide",
    403,
    "The key would be wider than the caller's own keys.",
    "Have an admin do it.",
    N_("This would be wider than your keys are. The provider can do that."),
    has_reason=True,
)
CONTACT_TOO_NEW: Final = ProblemCode(
    "contact-too-new",
    403,
    "The contact is new, and may not do this yet.",
    "Wait a week, or have an owner save the role again.",
    N_("Your sign-in is new here: in a week you may do this, or once an owner has saved your role again."),
)
SIGN_IN_FAILED: Final = ProblemCode(
    "sign-in-failed",
    403,
    "The issuer did not accept the sign-in, or its answer does not fit the request.",
    "Begin the sign-in again.",
    N_("The sign-in did not succeed. Begin it again."),
    has_reason=True,
)
ISSUER_UNAVAILABLE: Final = ProblemCode(
    "issuer-unavailable",
    503,
    "The issuer does not answer.",
    "Try again in a minute.",
    N_("The service where you sign in does not answer now. Try again in a minute."),
)
