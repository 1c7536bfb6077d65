"""Tracing: spans of requests for an OTLP receiver, for example an OpenTelemetry Collector."""

import re
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field

from edgeproxy.config import addresses, units
from edgeproxy.config.field_types import FieldName, Rate, Share, Switch
from edgeproxy.config.forms import build_text, written
from edgeproxy.config.part import Part
from edgeproxy.config.tls import UpstreamTls
from edgeproxy.config.units import PatternText, format_value, read_text, value_error

AN_ENDPOINT = "http://HOST:PORT or https://HOST:PORT of an OTLP receiver, such as http://127.0.0.1:4318"
AN_ATTRIBUTE = "up to 200 printable characters"
A_HEADER = "one line of visible ASCII, best from the environment: ${OTLP_TOKEN}"
PATH = re.compile(r"(/[A-Za-z0-9._~%-]*)*")
HEADER = re.compile(r"[ -~]{0,8000}")
ATTRIBUTE_CHARACTERS_MAX = 200
TRACES_PATH = "/v1/traces"
"""The path of traces below the receiver's path (OTLP/HTTP)."""


@written(build_text("URL", addresses.URL.removesuffix("/?") + "(/.*)?", "http://127.0.0.1:4318"))
def read_otlp_endpoint(value: object) -> str:
    """Read the base URL of an OTLP receiver. Its path may belong to a proxy."""
    url = read_text(value, AN_ENDPOINT)
    try:
        parts = urlsplit(url)
    except ValueError:
        raise value_error(f"{format_value(url)} is not a URL", AN_ENDPOINT) from None
    if parts.query or parts.fragment or not PATH.fullmatch(parts.path):
        raise value_error(f"{format_value(url)} has more than a path", AN_ENDPOINT)
    origin = addresses.read_collector(f"{parts.scheme}://{parts.netloc}")
    return origin + parts.path.rstrip("/").removesuffix(TRACES_PATH)


read_header = PatternText(
    "text", HEADER, "has characters that no field has, or too many", A_HEADER, write=lambda _: None
)
"""Reads the value of a field in requests to the receiver. Errors do not show it."""


@written(build_text("text", f".{{1,{ATTRIBUTE_CHARACTERS_MAX}}}", "production"))
def read_attribute(value: object) -> str:
    """Read the value of an attribute."""
    text = read_text(value, AN_ATTRIBUTE)
    if not 1 <= len(text) <= ATTRIBUTE_CHARACTERS_MAX or not text.isprintable():
        raise value_error(f"{format_value(text)} is no value of an attribute", AN_ATTRIBUTE)
    return text


Attribute = Annotated[str, BeforeValidator(read_attribute)]


class Tracing(Part):
    """Tracing with OpenTelemetry.

    ```yaml
    tracing: {endpoint: "http://127.0.0.1:4318", sample: 1%}
    ```

    Without it nothing is recorded, but `traceparent` is still passed on, or started. It needs
    `pip install 'edgeproxy[tracing]'`, which the image has, and with `protocol: grpc` `'edgeproxy[tracing-grpc]'`.
    """

    endpoint: Annotated[str, BeforeValidator(read_otlp_endpoint)] = Field(
        description="Base URL of the OTLP receiver. With `http/protobuf` spans go to `/v1/traces` below it. Use "
        "`https://` to another host: spans reveal customers' requests."
    )
    protocol: Literal["http/protobuf", "grpc"] = Field(
        default="http/protobuf",
        description="Protocol of the receiver, as `OTEL_EXPORTER_OTLP_PROTOCOL` names it.",
    )
    headers: dict[FieldName, Annotated[str, BeforeValidator(read_header)]] = Field(
        default={},
        repr=False,
        description="Fields of each request to the receiver, such as `authorization`; take secrets from the "
        'environment: `"${OTLP_TOKEN:-}"`.',
    )
    timeout: Annotated[float, BeforeValidator(units.Time(0.1, 60.0))] = Field(
        default=10.0, description="Time for a request to the receiver."
    )
    tls: UpstreamTls = Field(
        default=UpstreamTls(), description="TLS towards a receiver with `https://`. An error with `http://`."
    )
    sample: Share = Field(default=0.01, description="Share of recorded traces, among traces that start here.")
    parent: Literal["respect", "ignore"] = Field(
        default="respect",
        description="Treatment of a request with `traceparent`: `respect` records it if its sender does, up to "
        "`parent_rate`; `ignore` samples by `sample` as if it had none. The trace goes on either way.",
    )
    parent_rate: Rate = Field(
        default=units.Rate(10, 1.0),
        description="Requests of one worker that are recorded because their senders record them. Further requests are "
        "sampled by `sample`. Requests from `trusted_proxies`, such as an edge of another region, do not count.",
    )
    service_name: Attribute = Field(default="edgeproxy", description="`service.name` of the spans.")
    resource_attributes: dict[Attribute, Attribute] = Field(
        default={},
        description="Further attributes of the resource, such as `deployment.environment.name`. `service.version`, "
        "`service.instance.id` (the host and the process) and `edgeproxy.region` are always added.",
    )
    customer: Literal["pseudonym", "id", "none"] = Field(
        default="pseudonym",
        description="The customer's attribute on spans: `pseudonym` is `enduser.pseudo.id`, a hash of the customer's "
        "name; `id` is `enduser.id`, the name itself.",
    )
    client_address: Switch = Field(
        default=False, description="Adds `client.address` to spans. It is personal data if customers are people."
    )

    @property
    def is_exposed(self) -> bool:
        """True if others on the network could read the spans: the receiver is on another host and has no TLS."""
        return self.endpoint.startswith("http://") and not addresses.is_local_url(self.endpoint)
