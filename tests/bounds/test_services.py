"""Bounds of bodies of the collector, its pages and the beacon, and of issuers' key sets: just below and just above."""

import asyncio
import base64
from collections.abc import Awaitable, Callable

import pytest
import uvloop
from aiohttp import ClientSession, web

from edgeproxy.base.issuer_documents import InvalidDocumentError, parse_document
from edgeproxy.base.signing_keys import parse_signing_keys
from edgeproxy.bounds.bound import Bound
from edgeproxy.bounds.table import BOUNDS
from edgeproxy.collector.api import request_reader
from edgeproxy.collector.api.responses import ProblemError
from edgeproxy.collector.pages import forms
from edgeproxy.regions.beacon import app as beacon
from loadtest.testbed.ports import HOST

JSON, FORM = {"Content-Type": "application/json"}, {"Content-Type": forms.MEDIA}


async def read(request: web.Request) -> web.Response:
    """Read a body by the reader of its path, and answer with the status that this reader gives."""
    try:
        await READERS[request.path](request)
    except (ProblemError, forms.InvalidFormError) as error:
        return web.Response(status=error.status)
    return web.Response()


READERS: dict[str, Callable[[web.Request], Awaitable[object]]] = {
    "/json": request_reader.read_json,
    "/form": forms.parse_form,
    "/report": beacon.read_body,
}


def pad_json(size: int) -> bytes:
    return b"{" + b" " * (size - 2) + b"}"


BODIES: dict[str, tuple[str, dict[str, str], Callable[[int], bytes]]] = {
    "collector JSON": ("/json", JSON, pad_json),
    "form bytes": ("/form", FORM, lambda size: b"a=".ljust(size, b"b")),
    "form fields": ("/form", FORM, lambda count: b"&".join([b"a=b"] * count)),
    "beacon report": ("/report", JSON, pad_json),
}
"""By row: the path of its reader, the type of the body, and the body of so many units."""

SLOW_BODIES = {
    "collector body time": ("/json", JSON, request_reader, "BODY_GRACE_SECONDS"),
    "form time": ("/form", FORM, forms, "FORM_SECONDS_MAX"),
    "beacon report time": ("/report", JSON, beacon, "REPORT_SECONDS_MAX"),
}
"""Each row as above, with the constant that a test makes small, so that no test waits for the row's time."""


def post(path: str, headers: dict[str, str], *bodies: object) -> list[int]:
    """The statuses of the answers to these bodies, each over a connection of its own."""

    async def run() -> list[int]:
        application = web.Application(client_max_size=beacon.REPORT_BYTES_MAX)
        application.router.add_post(path, read)
        runner = web.AppRunner(application)
        await runner.setup()
        site = web.TCPSite(runner, HOST, 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        statuses = []
        for body in bodies:
            async with (
                ClientSession() as client,
                client.post(f"http://{host}:{port}{path}", data=body, headers=headers) as answer,
            ):
                statuses.append(answer.status)
        await runner.cleanup()
        return statuses

    return uvloop.run(run())


def get_number(row: Bound) -> int:
    assert row.number is not None
    return int(row.number)


@pytest.mark.parametrize("name", BODIES)
def test_body_beyond_its_bound_is_refused(name: str) -> None:
    row, (path, headers, create) = BOUNDS[name], BODIES[name]
    number = get_number(row)
    assert post(path, headers, create(number), create(number + 1)) == [200, row.status]


@pytest.mark.parametrize("name", SLOW_BODIES)
def test_a_bound_in_time_of_bodies(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path, headers, module, constant = SLOW_BODIES[name]
    monkeypatch.setattr(module, constant, 0.05)

    async def trickle() -> object:
        yield b"{"
        await asyncio.sleep(60)  # The reader gives up long before.

    assert post(path, headers, trickle()) == [BOUNDS[name].status]


def test_a_document_of_an_issuer_has_so_many_bytes() -> None:
    number = get_number(BOUNDS["issuer body"])
    assert parse_document(pad_json(number), "the issuer") == {}
    with pytest.raises(InvalidDocumentError, match=f"the issuer has more than {number} bytes"):
        parse_document(pad_json(number + 1), "the issuer")


def test_a_key_set_has_so_many_keys_that_count() -> None:
    number = get_number(BOUNDS["issuer keys"])
    point = base64.urlsafe_b64encode(bytes(31) + b"\1").rstrip(b"=").decode()
    keys = [{"kty": "OKP", "crv": "Ed25519", "x": point, "kid": str(each)} for each in range(number + 1)]
    assert len(parse_signing_keys({"keys": keys[:number]})) == number
    assert [key.key_id for key in parse_signing_keys({"keys": keys})] == [str(each) for each in range(number)]
