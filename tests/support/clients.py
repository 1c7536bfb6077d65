"""Common HTTP clients with one interface: the request to send, and the answer as received, without decoding."""

import asyncio
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from http.client import HTTPConnection, parse_headers
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

import aiohttp
import httpx
import requests

from loadtest.testbed.http_client import PATIENCE, Answer, answer_of
from loadtest.testbed.ports import HOST

Fields = Mapping[str, str]
Send = Callable[..., Answer]
"""(port, path, *, method, fields, body, chunked) -> Answer. No client follows redirects."""

PIECE = 1 << 16
"""Bytes of a piece of a body that is sent without a length."""
LONG = 60.0
"""Seconds for a whole exchange, a large body included."""


def pieces(body: bytes) -> Iterator[bytes]:
    """Yield the body in pieces, so that a client does not know its length."""
    return (body[at : at + PIECE] for at in range(0, len(body), PIECE))


async def apieces(body: bytes) -> AsyncIterator[bytes]:
    """`pieces` for clients that want them asynchronously."""
    for piece in pieces(body):
        yield piece


def with_http_client(
    port: int, path: str, *, method: str = "GET", fields: Fields | None = None, body: bytes = b"", chunked: bool = False
) -> Answer:
    """The standard library's."""
    connection = HTTPConnection(HOST, port, timeout=PATIENCE)
    try:
        sent = pieces(body) if chunked else (body or None)
        connection.request(method, path, body=sent, headers=dict(fields or {}), encode_chunked=chunked)
        return answer_of(connection.getresponse())
    finally:
        connection.close()


def with_httpx(
    port: int, path: str, *, method: str = "GET", fields: Fields | None = None, body: bytes = b"", chunked: bool = False
) -> Answer:
    """httpx."""
    with (
        httpx.Client(trust_env=False, verify=False, timeout=PATIENCE) as client,
        client.stream(
            method,
            f"http://{HOST}:{port}{path}",
            headers=dict(fields or {}),
            content=pieces(body) if chunked else (body or None),
        ) as response,
    ):
        named = [(name.decode().lower(), value.decode("latin-1")) for name, value in response.headers.raw]
        return Answer(response.status_code, named, b"".join(response.iter_raw()))


def with_requests(
    port: int, path: str, *, method: str = "GET", fields: Fields | None = None, body: bytes = b"", chunked: bool = False
) -> Answer:
    """requests."""
    with (
        own_session() as session,
        session.request(
            method,
            f"http://{HOST}:{port}{path}",
            headers=dict(fields or {}),
            data=pieces(body) if chunked else (body or None),
            timeout=PATIENCE,
            allow_redirects=False,
            stream=True,
        ) as response,
    ):
        named = [(name.lower(), value) for name, value in response.raw.headers.iteritems()]
        return Answer(response.status_code, named, response.raw.read(decode_content=False))


def own_session() -> requests.Session:
    """Return a session that ignores proxies of the environment."""
    session = requests.Session()
    session.trust_env = False
    return session


def with_aiohttp(
    port: int, path: str, *, method: str = "GET", fields: Fields | None = None, body: bytes = b"", chunked: bool = False
) -> Answer:
    """aiohttp."""

    async def send() -> Answer:
        timeout = aiohttp.ClientTimeout(total=LONG)
        async with (
            aiohttp.ClientSession(auto_decompress=False, timeout=timeout) as session,
            session.request(
                method,
                f"http://{HOST}:{port}{path}",
                headers=fields,
                data=apieces(body) if chunked else (body or None),
                allow_redirects=False,
            ) as response,
        ):
            named = [(name.decode().lower(), value.decode("latin-1")) for name, value in response.raw_headers]
            return Answer(response.status, named, await response.read())

    return asyncio.run(send())


def with_curl(
    port: int, path: str, *, method: str = "GET", fields: Fields | None = None, body: bytes = b"", chunked: bool = False
) -> Answer:
    """curl on the command line."""
    with TemporaryDirectory() as folder:
        (sent, received, head) = (Path(folder) / name for name in ("sent", "received", "head"))
        command: list[str | Path] = [
            "curl",
            "--silent",
            "--show-error",
            "--noproxy",
            "*",
            "--max-time",
            str(LONG),
            "--path-as-is",
        ]
        command += ["--output", received, "--dump-header", head]
        command += ["--head"] if method == "HEAD" else ["--request", method]
        for name, value in (fields or {}).items():
            command += ["--header", f"{name}: {value}"]
        if body:
            sent.write_bytes(body)
            command += ["--data-binary", f"@{sent}"]
            if "Content-Type" not in (fields or {}):
                command += ["--header", "Content-Type: application/octet-stream"]
        if chunked:
            command += ["--header", "Transfer-Encoding: chunked"]
        done = subprocess.run([*map(str, command), f"http://{HOST}:{port}{path}"], capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()
        has_body = received.exists() and method != "HEAD"
        return curl_answer(head.read_bytes(), received.read_bytes() if has_body else b"")


def curl_answer(heads: bytes, body: bytes) -> Answer:
    """Parse the output of --dump-header; all heads but the last are interim answers."""
    line, _, fields = heads.removesuffix(b"\r\n\r\n").split(b"\r\n\r\n")[-1].partition(b"\r\n")
    named = [(name.lower(), value) for name, value in parse_headers(BytesIO(fields + b"\r\n\r\n")).items()]
    return Answer(int(line.split()[1]), named, body)


CLIENTS: dict[str, Send] = {
    "curl": with_curl,
    "aiohttp": with_aiohttp,
    "httpx": with_httpx,
    "requests": with_requests,
    "http.client": with_http_client,
}
if shutil.which("curl") is None:
    del CLIENTS["curl"]
