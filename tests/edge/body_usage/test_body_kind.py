"""The kind of a body, by the head of its answer."""

import pytest

from edgeproxy.edge.body_usage.body_kind import BodyKind, describe_body

JSON, STREAM, LINES, AMAZON, TEXT, NEITHER, ENCODED = BodyKind


@pytest.mark.parametrize(
    ("lines", "kind"),
    [
        (["Content-Type: application/json"], (JSON, b"")),
        (["content-type:APPLICATION/JSON ; charset=utf-8", "Content-Encoding:"], (JSON, b"")),
        (["Content-Type: application/vnd.api+json", "Content-Encoding: identity"], (JSON, b"")),
        (["Content-Encoding: GZIP", "Content-Type: text/event-stream"], (STREAM, b"gzip")),
        (["Content-Type: application/json", "Content-Encoding: deflate"], (JSON, b"deflate")),
        (["Content-Type: application/json", "Content-Encoding: zstd"], (JSON, b"zstd")),
        (["Content-Type: application/json", "Content-Encoding: br"], (ENCODED, b"")),
        (["Content-Type: application/json", "Content-Encoding: gzip, gzip"], (ENCODED, b"")),
        (["Content-Type: text/plain", "Content-Encoding: br"], (ENCODED, b"")),
        (["X-Content-Type: application/json"], (TEXT, b"")),
        ([], (TEXT, b"")),
        (["Content-Type: application/octet-stream"], (TEXT, b"")),
        (["Content-Type: application/x-ndjson; charset=utf-8"], (LINES, b"")),
        (["Content-Type: application/json-seq"], (LINES, b"")),
        (["Content-Type: application/vnd.amazon.eventstream"], (AMAZON, b"")),
        (["Content-Type: audio/mpeg"], (NEITHER, b"")),
    ],
)
def test_answer_head_determines_the_body_kind(lines: list[str], kind: tuple[BodyKind, bytes]) -> None:
    head = "".join(line + "\r\n" for line in ["HTTP/1.1 200 OK", "Date: x", *lines])
    assert describe_body(head.encode()) == kind
