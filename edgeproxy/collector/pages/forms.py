"""Forms from browsers, and the check that one of our pages sent them."""

import asyncio
from collections.abc import Mapping
from urllib.parse import parse_qsl

from aiohttp import web

from edgeproxy.collector.problems import page_codes
from edgeproxy.collector.problems.coded_error import CodedError

FORM_BYTES_MAX = 128 << 10
FIELDS_MAX = 2000
"""Most fields of a form. The form of prices has one per amount and plan."""
FORM_SECONDS_MAX = 10.0
WHOLE_DIGITS_MAX = 15
"""Most digits of a whole number, so that it is exact in JSON."""
MEDIA = "application/x-www-form-urlencoded"
PORTS = {"http": ":80", "https": ":443"}


class InvalidFormError(CodedError):
    """A form is invalid."""


def is_whole_number(text: str) -> bool:
    """Return whether a field has a whole number from 0, of WHOLE_DIGITS_MAX digits at most."""
    return text.isascii() and text.isdigit() and len(text) <= WHOLE_DIGITS_MAX


async def parse_form(request: web.Request) -> dict[str, str]:
    """Return the fields of a form. Raises InvalidFormError."""
    if request.content_type != MEDIA:
        raise InvalidFormError(page_codes.FORM_TYPE_UNSUPPORTED, f"send {MEDIA}")
    pieces, size = [], 0
    try:
        async with asyncio.timeout(FORM_SECONDS_MAX):
            async for piece in request.content.iter_any():
                pieces.append(piece)
                size += len(piece)
                if size > FORM_BYTES_MAX:
                    raise InvalidFormError(page_codes.FORM_TOO_LARGE, f"the form has more than {FORM_BYTES_MAX} bytes")
    except TimeoutError:
        raise InvalidFormError(page_codes.FORM_TOO_SLOW, "the form came too slowly") from None
    try:
        fields = parse_qsl(
            b"".join(pieces).decode(), keep_blank_values=True, max_num_fields=FIELDS_MAX, errors="strict"
        )
    except ValueError:  # Also for invalid UTF-8.
        raise InvalidFormError(page_codes.FORM_UNREADABLE, "the form cannot be read") from None
    return {name: value.replace("\r\n", "\n") for name, value in fields}


def normalize_origin(url: str) -> str:
    """Return the origin of a URL in the form of the `Origin` field."""
    scheme = url.partition("://")[0]
    return url.rstrip("/").removesuffix(PORTS.get(scheme, ":"))


def is_same_origin(fields: Mapping[str, str], origins: frozenset[str]) -> bool:
    """Return True if one of our pages sent a request, judged by header fields that browsers set.

    All browsers send `Origin` with a form, so a request without it was not sent by a page.
    """
    return fields.get("Sec-Fetch-Site", "same-origin") == "same-origin" and fields.get("Origin") in origins
