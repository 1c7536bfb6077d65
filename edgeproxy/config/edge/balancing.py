"""Affinity: related requests go to one endpoint of an upstream."""

import re
from typing import Annotated, Final

from pydantic import BeforeValidator, Field

from edgeproxy.config import parsers
from edgeproxy.config.edge import readers
from edgeproxy.config.forms import build_text, written
from edgeproxy.config.part import Part
from edgeproxy.config.units import format_value, read_text, value_error

SECRET_CHARACTERS_MIN: Final = 16
"""Minimum characters of a secret. A shorter one could be guessed."""
A_HASH: Final = "address, customer, header NAME or cookie NAME"
HASH: Final = re.compile(r"address|customer|(?:header|cookie) [A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}")
CHOSEN_BY_CLIENTS: Final = ("header ", "cookie ")
"""Prefixes of values that clients choose. Because of the secret, clients cannot compute a value's endpoint."""


@written(build_text("value of a request", HASH.pattern, "address", "customer", "cookie SID"))
def read_hash(value: object) -> str:
    """Read the part of a request that chooses the endpoint."""
    text = " ".join(read_text(value, A_HASH).split())
    if not HASH.fullmatch(text):
        raise value_error(f"{format_value(text)} is no value of a request", A_HASH)
    return text


class Balance(Part):
    """[Affinity](affinity.md): related requests go to the same endpoint while it is up.

    ```yaml
    upstreams:
      api: {endpoints: [http://10.0.0.7:8000, http://10.0.0.8:8000], balance: {hash: customer}}
    ```

    Write either `hash` or `cookie`.
    """

    hash: Annotated[str, BeforeValidator(read_hash)] | None = Field(
        default=None,
        description="Request value that chooses the endpoint: the client's `address`, the `customer` (without one the "
        "address), `header NAME` or `cookie NAME`. An endpoint that leaves moves only its own requests. A request "
        "without the value goes to any endpoint.",
    )
    cookie: Annotated[str | None, BeforeValidator(readers.read_parameter)] = Field(
        default=None,
        description="Cookie that the edge sets with the endpoint of the first answer, in a form that only the edge can "
        "write. If that endpoint is not up, another one is chosen and the cookie is set again.",
    )
    secret: Annotated[str | None, BeforeValidator(parsers.read_secret)] = Field(
        default=None,
        description="Secret of at least 16 characters, from the environment, and the same at all edges. Needed with "
        "`cookie`, and with a hash of a header or a cookie: without it a client could compute a value that leads to a "
        "chosen endpoint.",
    )
