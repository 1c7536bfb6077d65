"""Where clients send their keys."""

from typing import Annotated

from pydantic import BeforeValidator

from edgeproxy.config import parsers, units
from edgeproxy.config.part import Part

AUTHORIZATION = "authorization"


class Auth(Part):
    """Where clients send their keys."""

    fields: Annotated[
        tuple[Annotated[str, BeforeValidator(parsers.read_key_field)], ...],
        BeforeValidator(parsers.read_key_fields),
    ] = ("X-API-Key", "Authorization")
    """The fields that may hold a key; of those that a request has the first one does. Authorization: as Bearer KEY."""
    query: Annotated[str | None, BeforeValidator(parsers.read_parameter)] = None
    """The parameter of the query that may hold a key; by default `none`."""
    cookie: Annotated[str | None, BeforeValidator(parsers.read_parameter)] = None
    """The cookie that may hold a key; by default `none`."""
    websocket_protocol: Annotated[bool, BeforeValidator(units.read_switch)] = False
    """Whether a WebSocket's key may be among its subprotocols, as api-key.KEY."""

    @property
    def ways(self) -> str:
        """How to send a key, for those who sent none."""
        ways = [
            "Authorization: Bearer KEY" if field.lower() == AUTHORIZATION else f"{field}: KEY" for field in self.fields
        ]
        return f"Send it as {' or '.join(ways)}"
