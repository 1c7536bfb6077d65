"""Where clients send their keys."""

from typing import Annotated, Literal

from pydantic import BeforeValidator

from edgeproxy.config import units
from edgeproxy.config.edge import readers
from edgeproxy.config.part import Part

AUTHORIZATION = "authorization"


class Auth(Part):
    """Where clients send their keys."""

    fields: Annotated[
        tuple[Annotated[str, BeforeValidator(readers.read_key_field)], ...],
        BeforeValidator(readers.read_key_fields),
    ] = ("X-API-Key", "Authorization")
    """The fields that may hold a key; of those that a request has the first one does. Authorization: as Bearer KEY."""
    query: Annotated[str | None, BeforeValidator(readers.read_parameter)] = None
    """The parameter of the query that may hold a key; by default `none`."""
    cookie: Annotated[str | None, BeforeValidator(readers.read_parameter)] = None
    """The cookie that may hold a key; by default `none`."""
    websocket_protocol: Annotated[bool, BeforeValidator(units.read_switch)] = False
    """Whether a WebSocket's key may be among its subprotocols, as api-key.KEY."""
    certificate: Literal["CN", "DNS", "URI", "email"] = "CN"
    """Which name of a client's certificate says who that is: the common name of its subject, or one of its subject
    alternative names."""

    @property
    def key_instructions(self) -> str:
        """How to send a key, in a sentence for clients that sent none."""
        ways = [
            "Authorization: Bearer KEY" if field.lower() == AUTHORIZATION else f"{field}: KEY" for field in self.fields
        ]
        return f"Send it as {' or '.join(ways)}"
