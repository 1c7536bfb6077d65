"""Check that an answer through the edge equals the service's direct answer."""

from collections.abc import Iterable

from loadtest.testbed.http_client import Answer

STAMPED = frozenset(
    (
        *("x-request-id", "traceparent", "x-edge-region", "x-customer-id", "x-customer-tier"),
        *("x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "via"),
    )
)
"""Fields of requests that the edge sets."""
OWNED = frozenset(("x-request-id", "ratelimit", "ratelimit-policy"))
"""Fields of answers that the edge sets."""
OF_A_CONNECTION = frozenset(("connection", "keep-alive", "transfer-encoding"))
"""Only the transfer coding matters here, and it is compared separately: the edge chunks anew."""
OF_THE_MOMENT = frozenset(("date",))


def kept(fields: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the fields that no intermediary may change."""
    left_out = OWNED | OF_A_CONNECTION | OF_THE_MOMENT
    return [(name, value) for name, value in fields if name not in left_out]


def assert_alike(through: Answer, direct: Answer) -> None:
    """Require equal status, body and fields in order, apart from the edge's own fields."""
    assert through.status == direct.status
    assert kept(through.fields) == kept(direct.fields)
    assert through.all("transfer-encoding") == direct.all("transfer-encoding")
    assert through.body == direct.body
    assert len(through.all("x-request-id")) == 1
