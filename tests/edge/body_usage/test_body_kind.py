"""The kind of a body, by the head of its answer."""

import pytest

from edgeproxy.edge.body_usage.body_kind import BodyKind, describe_body

JSON, STREAM, NEITHER, ENCODED = BodyKind


@pytest.mark.parametrize(
    ("lines", "kind"),
    [
        (["Content-Type: application/json"], (JSON, False)),
        (["content-type:APPLICATION/JSON ; charset=utf-8", "Content-Encoding:"], (JSON, False)),
        (["Content-Type: application/vnd.api+json", "Content-Encoding: identity"], (JSON, False)),
        (["Content-Encoding: GZIP", "Content-Type: text/event-stream"], (STREAM, True)),
        (["Content-Type: application/json", "Content-Encoding: deflate"], (JSON, True)),
        (["Content-Type: application/json", "Content-Encoding: br"], (ENCODED, False)),
        (["Content-Type: application/json", "Content-Encoding: gzip, gzip"], (ENCODED, False)),
        (["Content-Type: text/plain", "Content-Encoding: br"], (NEITHER, False)),
        (["X-Content-Type: application/json"], (NEITHER, False)),
        ([], (NEITHER, False)),
    ],
)
def test_a_body_is_what_its_head_says(lines: list[str], kind: tuple[BodyKind, bool]) -> None:
    head = "".join(line + "\r\n" for line in ["HTTP/1.1 200 OK", "Date: x", *lines])
    assert describe_body(head.encode()) == kind
