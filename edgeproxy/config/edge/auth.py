"""The places of keys in requests."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from edgeproxy.config import units
from edgeproxy.config.edge import readers
from edgeproxy.config.part import Part

AUTHORIZATION = "authorization"


class Auth(Part):
    """Places where clients send their keys.

    ```yaml
    auth: {fields: [X-API-Key], query: api_key}   # Authorization is the application's own
    ```

    The edge looks at `fields` in their order, then at subprotocols, the cookie and the query. The first key counts, and
    nothing else is tried: with an unknown key in `X-API-Key` the answer is 401, whatever `Authorization` says.

    The fields listed after the one with the key belong to the application and are forwarded unchanged. So a key in
    `X-API-Key` and the application's `Authorization: Bearer TOKEN` can be in one request. The upstream does not get
    the key, unless it has [`forward_key`](#upstreamsname) or the route has `auth: none`.
    """

    fields: Annotated[
        tuple[Annotated[str, BeforeValidator(readers.read_key_field)], ...],
        BeforeValidator(readers.read_key_fields),
    ] = Field(
        default=("X-API-Key", "Authorization"),
        description="Fields that may hold a key: in `Authorization` as `Bearer KEY`, in any other as the whole value. "
        "Leave out fields that your application uses.",
    )
    query: Annotated[str | None, BeforeValidator(readers.read_parameter)] = Field(
        default=None,
        description="Query parameter that may hold a key, for clients that cannot set fields. URLs get into logs and "
        "histories: give such keys few rights. The edge does not log queries, and removes the parameter.",
    )
    cookie: Annotated[str | None, BeforeValidator(readers.read_parameter)] = Field(
        default=None,
        description="Cookie that may hold a key. Browsers send cookies with requests from other sites' pages too: set "
        "it with `SameSite=Strict`, `Secure` and `HttpOnly`.",
    )
    websocket_protocol: Annotated[bool, BeforeValidator(units.read_switch)] = Field(
        default=False,
        description='Accepts the key of a WebSocket among its subprotocols: `new WebSocket(url, ["chat", '
        '"api-key.KEY"])`. Browsers can set no other field. Also offer a subprotocol of your service, or browsers '
        "close the connection.",
    )
    basic: Annotated[bool, BeforeValidator(units.read_switch)] = Field(
        default=False,
        description="Also accepts a key in `Authorization` with the scheme Basic: as the password, or as the user if "
        "the password is empty. For `curl -u KEY:`, git, docker, pip, npm and Maven. Most of these send it only after "
        "an answer with a [`challenge`](#routes) of the route.",
    )
    certificate: Literal["CN", "DNS", "URI", "email"] = Field(
        default="CN",
        description="Name in a [client certificate](tls.md#customers-by-certificate) that identifies the customer, on "
        "routes that take certificates: the common name, or a subject alternative name.",
    )

    @property
    def key_instructions(self) -> str:
        """A sentence telling clients without a key how to send one."""
        ways = [
            "Authorization: Bearer KEY" if field.lower() == AUTHORIZATION else f"{field}: KEY" for field in self.fields
        ]
        return f"Send it as {' or '.join(ways)}"
