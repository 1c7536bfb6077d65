"""Users with passwords on a route: the credentials of a request (RFC 7617), and the refusal without valid ones."""

import base64
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from edgeproxy.edge.errors import RejectedError, UnidentifiedError
from edgeproxy.edge.http1.field_values import find_values
from edgeproxy.edge.http1.grammar import OWS

if TYPE_CHECKING:
    from edgeproxy.config.edge.basic_users import BasicAuth

AUTHORIZATION: Final = b"authorization"
PASSWORD_BYTES_MAX: Final = 72
"""bcrypt ignores the rest of a longer password, so such a one is refused."""
CREDENTIALS_BYTES_MAX: Final = 512
"""Bytes of the credentials in Base64. The longest name and password take 440."""
CONTROLS: Final = bytes((*range(0x20), 0x7F))

WRONG: Final = "The user name or the password is wrong"
NEEDED: Final = "A user name and a password are needed here"


class Credentials(NamedTuple):
    """A user and a password, as sent."""

    user: bytes
    password: bytes


class BasicUsers:
    """The users of one route."""

    def __init__(self, settings: "BasicAuth") -> None:
        self.hashes = {user.encode(): hashed.encode() for user, hashed in settings.users.items()}
        """The bcrypt hashes by user."""
        # RFC 7617 section 2.1: `charset` asks for UTF-8.
        self._challenge = f'WWW-Authenticate: Basic realm="{settings.realm}", charset="UTF-8"\r\n'.encode()

    def create_refusal(self, reason: Literal["missing", "password"]) -> UnidentifiedError:
        """Return the 401 for a request without credentials, or with wrong ones."""
        return UnidentifiedError(reason, NEEDED if reason == "missing" else WRONG, fields=self._challenge)


def read_credentials(lines: bytes) -> Credentials | None:
    """Return the credentials in a request's lines; None if there are none by the scheme Basic.

    Credentials that no user can have become empty ones: they are too long, malformed, or have control characters (RFC
    7617 section 2). Raises RejectedError(400) if Authorization is repeated.
    """
    values = find_values(lines, AUTHORIZATION)
    if len(values) > 1:
        raise RejectedError(400, "Authorization is repeated", close=False)
    if not values or values[0][:5].lower() != b"basic" or values[0][5:6] not in OWS:
        return None
    encoded = values[0][5:].strip(OWS)
    if len(encoded) > CREDENTIALS_BYTES_MAX:
        return NOBODY
    try:
        decoded = base64.b64decode(encoded, validate=True)
    except ValueError:
        return NOBODY
    user, colon, password = decoded.partition(b":")
    if not colon or len(password) > PASSWORD_BYTES_MAX or decoded.translate(None, CONTROLS) != decoded:
        return NOBODY
    return Credentials(user, password)


NOBODY: Final = Credentials(b"", b"")
"""Credentials that are refused without a check of the password. No user has an empty name."""
