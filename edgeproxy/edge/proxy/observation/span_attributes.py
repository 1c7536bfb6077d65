"""The attributes of spans, by OpenTelemetry's semantic conventions: HTTP, RPC and GenAI.

Attributes without a name there begin with `edgeproxy.`. None of them has a query, a key, a field's value other than
Host, or the name of an end user.
"""

import hashlib
import re
from typing import TYPE_CHECKING, Final

from edgeproxy.edge.http1.field_values import find_values
from edgeproxy.edge.http1.grammar import METHODS
from edgeproxy.edge.proxy.metering.labels import NO_LABEL
from edgeproxy.edge.proxy.transport import grpc_status

if TYPE_CHECKING:
    from edgeproxy.config.tracing import Tracing
    from edgeproxy.edge.body_usage.statement import StatedCounts
    from edgeproxy.edge.proxy.observation.request_span import TracedExchange
    from edgeproxy.edge.proxy.routing.binding import RouteBinding
    from edgeproxy.edge.proxy.upstreams.pool import Endpoint
    from edgeproxy.tracing.spans import AttributeValue

Attributes = dict[str, "AttributeValue"]

PATH_CHARACTERS_MAX: Final = 512
HOST_CHARACTERS_MAX: Final = 255
MODEL_CHARACTERS_MAX: Final = 100
TRACE_STATE_BYTES_MAX: Final = 512
"""The maximum of a tracestate in a span, in bytes (W3C Trace Context). A longer one is forwarded but not recorded."""
ERROR_TYPE: Final = re.compile(r"[a-z][a-z_]{0,60}")
UNKNOWN_METHOD: Final = "_OTHER"
PSEUDONYM_DIGITS: Final = 16
PROVIDERS: Final = {"openai": "openai", "anthropic": "anthropic", "gemini": "gcp.gemini"}
"""The provider by the format of its answers, as far as that shows it: others use OpenAI's format as well."""
OPERATIONS: Final = (
    (b"/embeddings", "embeddings"),
    (b":embedContent", "embeddings"),
    (b":generateContent", "generate_content"),
    (b":streamGenerateContent", "generate_content"),
    (b"/chat/completions", "chat"),
    (b"/completions", "text_completion"),
)
"""The operation of a model, by the end of the path."""
COUNTS: Final = {
    "input_tokens": "gen_ai.usage.input_tokens",
    "output_tokens": "gen_ai.usage.output_tokens",
    "cached_tokens": "gen_ai.usage.cache_read.input_tokens",
}


def get_method(exchange: "TracedExchange") -> str:
    """Return the method. An unregistered one may be any text, so it is not recorded."""
    return exchange.method.decode() if exchange.method in METHODS else UNKNOWN_METHOD


def list_request_attributes(exchange: "TracedExchange") -> Attributes:
    """List the attributes that a request shares with others. A refused head is not trusted, so little of it is used."""
    attributes: Attributes = {"http.request.method": get_method(exchange)}
    if not exchange.path:
        return attributes
    attributes["url.scheme"] = "https" if exchange.is_secure() else "http"
    attributes["network.protocol.version"] = "2" if exchange.client.is_http2 else f"1.{exchange.minor}"
    hosts = find_values(exchange.keep, b"x-forwarded-host")
    if hosts:
        attributes["server.address"] = hosts[-1][:HOST_CHARACTERS_MAX].decode("ascii", "backslashreplace")
    return attributes


def list_own_attributes(exchange: "TracedExchange", *, with_address: bool) -> Attributes:
    """List the attributes of this request alone."""
    attributes: Attributes = {}
    if exchange.rid:
        attributes["edgeproxy.request_id"] = exchange.rid.decode("ascii", "replace")
    if exchange.path:
        attributes["url.path"] = exchange.path[:PATH_CHARACTERS_MAX].decode("ascii", "backslashreplace")
        if with_address:
            attributes["client.address"] = exchange.client.address.text
    return attributes


def get_error_type(error: str | None, status: int) -> str:
    """Return an error type from a small set: RFC 9209's, else the status."""
    if error is not None and ERROR_TYPE.fullmatch(error):
        return error
    return str(status) if status >= 400 else "_OTHER"


def list_outcome_attributes(status: int, error_type: str | None) -> Attributes:
    """List the attributes of the result of a request or of an attempt."""
    attributes: Attributes = {}
    if status:
        attributes["http.response.status_code"] = status
    if error_type is not None:
        attributes["error.type"] = error_type
    return attributes


def find_call(exchange: "TracedExchange") -> str | None:
    """Find the called gRPC method, `package.Service/Method`; None for other requests."""
    if not exchange.path or exchange.method != b"POST" or not grpc_status.is_grpc(exchange.keep):
        return None
    return exchange.path[1 : PATH_CHARACTERS_MAX + 1].decode("ascii", "backslashreplace")


def list_call_attributes(call: str, status: bytes | None) -> Attributes:
    """List the attributes of a gRPC call."""
    attributes: Attributes = {"rpc.system.name": "grpc", "rpc.method": call}
    name = None if status is None or not status.isdigit() else grpc_status.NAMES.get(int(status[:4]))
    if name is not None:
        attributes["rpc.response.status_code"] = name
    return attributes


def list_customer_attributes(binding: "RouteBinding", settings: "Tracing") -> Attributes:
    """List the attributes of a route binding's customer and route."""
    route = binding.route
    attributes: Attributes = {
        "http.route": route.path.decode("ascii", "backslashreplace"),
        "edgeproxy.route": route.label,
        "edgeproxy.tier": binding.tier,
    }
    if binding.customer != NO_LABEL and settings.customer == "id":
        attributes["enduser.id"] = binding.customer
    elif binding.customer != NO_LABEL and settings.customer == "pseudonym":
        attributes["enduser.pseudo.id"] = hash_customer(binding.customer)
    return attributes


def hash_customer(customer: str) -> str:
    """Return the pseudonym of a customer, which is equal on all edges."""
    return hashlib.sha256(f"edgeproxy tracing\n{customer}".encode()).hexdigest()[:PSEUDONYM_DIGITS]


def list_decision_attributes(exchange: "TracedExchange", *, is_refused: bool) -> Attributes:
    """List the attributes of the limit decision. The limit named is the one closest to refusal."""
    policy = exchange.shown_policy
    attributes: Attributes = {"edgeproxy.limit.refused": is_refused}
    if policy is not None:
        attributes["edgeproxy.limit.name"] = policy.name
    return attributes


def list_endpoint_attributes(endpoint: "Endpoint") -> Attributes:
    """List the attributes of the endpoint."""
    return {
        "server.address": endpoint.host,
        "server.port": endpoint.port,
        "url.scheme": endpoint.scheme,
        "edgeproxy.upstream": endpoint.service.name,
        "edgeproxy.upstream.region": endpoint.region,
    }


def list_attempt_attributes(exchange: "TracedExchange", number: int) -> Attributes:
    """List the attributes of an attempt; `number` is 0 for the first one."""
    attributes: Attributes = {"http.request.method": get_method(exchange)}
    if number:
        attributes["http.request.resend_count"] = number
    return attributes


def format_url(exchange: "TracedExchange", endpoint: "Endpoint") -> str:
    """Format the URL requested from an endpoint, without the query."""
    path = exchange.path[:PATH_CHARACTERS_MAX].decode("ascii", "backslashreplace")
    return f"{endpoint.scheme}://{endpoint.host}:{endpoint.port}{path}"


def list_model_attributes(exchange: "TracedExchange", usage: "StatedCounts") -> Attributes:
    """List the attributes that a model's answer states."""
    binding = exchange.binding
    assert binding is not None
    settings = binding.route.settings.response_usage
    operation = next((name for end, name in OPERATIONS if exchange.path.endswith(end)), "chat")
    attributes: Attributes = {"gen_ai.operation.name": operation}
    if usage.model is not None:
        attributes["gen_ai.response.model"] = usage.model[:MODEL_CHARACTERS_MAX]
    if settings is not None and settings.format in PROVIDERS:
        attributes["gen_ai.provider.name"] = PROVIDERS[settings.format]
        for count, name in COUNTS.items():
            number = usage.find_number(count)
            if number is not None:
                attributes[name] = number
    return attributes


def name_operation(attributes: Attributes) -> str:
    """Name the operation of a model, and the model."""
    return f"{attributes['gen_ai.operation.name']} {attributes.get('gen_ai.response.model', '')}".strip()


def find_trace_state(exchange: "TracedExchange") -> str:
    """Find the tracestate that came with a trace; empty if it is too long, or if none came."""
    state = b",".join(find_values(exchange.keep, b"tracestate"))
    return state.decode("ascii", "replace") if len(state) <= TRACE_STATE_BYTES_MAX else ""
