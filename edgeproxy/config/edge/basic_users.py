"""Users with passwords on a route, in place of customers."""

import re
from typing import Annotated, Final

from pydantic import BeforeValidator, Field

from edgeproxy.config.field_types import File
from edgeproxy.config.forms import build_text, written
from edgeproxy.config.htpasswd import BCRYPT, MAKE_IT, find_hash_fault
from edgeproxy.config.part import Part
from edgeproxy.config.units import PatternText, read_text, value_error

REALM: Final = re.compile(r"[ !#-\[\]-~]{1,100}")

read_realm = PatternText(
    "realm", REALM, "{} is not a realm", "1 to 100 visible ASCII characters and spaces, without quotes and backslashes"
)
"""Reads the name that browsers show when they ask for a password."""


@written(build_text("bcrypt hash", BCRYPT.pattern))
def read_hash(value: object) -> str:
    """Read the bcrypt hash of a password. Errors do not show it."""
    text = read_text(value, MAKE_IT)
    fault = find_hash_fault(text)
    if fault is not None:
        raise value_error(fault, MAKE_IT)
    return text


class BasicAuth(Part):
    """Users with passwords, for small internal pages: [Basic authentication](access.md#users-with-passwords).

    ```yaml
    routes: [{path: /wiki/*, upstream: api, auth: {basic: users.htpasswd, realm: Wiki}}]
    ```

    Needs `pip install 'edgeproxy[basic]'`.
    """

    basic: File = Field(
        description="File of `htpasswd -B`, with a user and a bcrypt hash in each line. A reload reads it again."
    )
    realm: Annotated[str, BeforeValidator(read_realm)] = Field(
        default="edgeproxy", description="Name that browsers show when they ask for the password."
    )
    users: dict[str, Annotated[str, BeforeValidator(read_hash)]] = Field(
        default={}, repr=False, description="Users of the file. The edge fills it; it cannot be set."
    )
