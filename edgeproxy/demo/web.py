"""HTTP to the services of the demonstration, past any proxy of the environment."""

import base64
import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from typing import NamedTuple

from edgeproxy.base.json_values import JsonDocument

SECONDS = 15.0


class Response(NamedTuple):
    """A response; `json` is None if the body is not JSON."""

    status: int
    json: JsonDocument


class UnexpectedResponseError(Exception):
    """A service did not do its task; the message has its answer."""


_directly = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def send(
    url: str,
    *,
    method: str | None = None,
    token: str | None = None,
    json_body: object = None,
    form: Mapping[str, str] | None = None,
    stripe_key: str | None = None,
    headers: Mapping[str, str] | None = None,
    seconds: float = SECONDS,
) -> Response:
    """Send a request, and return the response with any status. Raises OSError without a response."""
    fields = dict(headers or {})
    data = None
    if token is not None:
        fields["Authorization"] = f"Bearer {token}"
    if stripe_key is not None:
        fields["Authorization"] = "Basic " + base64.b64encode(f"{stripe_key}:".encode()).decode()
    if json_body is not None:
        fields["Content-Type"] = "application/json"
        data = json.dumps(json_body).encode()
    elif form is not None:
        data = urllib.parse.urlencode(form).encode()
    request = urllib.request.Request(url, data=data, headers=fields, method=method)
    try:
        with _directly.open(request, timeout=seconds) as response:
            return Response(response.status, _parse(response.read()))
    except urllib.error.HTTPError as error:
        with error:
            return Response(error.code, _parse(error.read()))


def require(response: Response, *expected: int) -> JsonDocument:
    """Return the JSON of a response with an expected status; raises UnexpectedResponseError."""
    if response.status not in expected:
        raise UnexpectedResponseError(f"{response.status}: {json.dumps(response.json)}")
    return response.json


def _parse(body: bytes) -> JsonDocument:
    try:
        return json.loads(body)
    except ValueError:
        return None
