"""What endpoints that change something have in common, as the table of endpoints has it."""

from typing import Any

from edgeproxy.collector.api import ledger_models
from edgeproxy.collector.api.endpoint import HeadField

IF_MATCH = {
    "If-Match": HeadField(
        {"type": "string", "pattern": r'^(\*|"[0-9]{1,15}"|(W/)?"[!#-~]*")$'},
        "The ETag of the version that is changed.",
    )
}
IDEMPOTENCY_KEY = {
    "Idempotency-Key": HeadField(
        {"type": "string", "pattern": "^[!-~]{1,255}$"},
        "A unique text: the same request with the same one is carried out once.",
    )
}
CHANGES: Any = {"query": ledger_models.ChangeQuery, "fields": IF_MATCH, "shows": ("ETag",), "refuses": (409, 412, 422)}
CREATES: Any = {
    "query": ledger_models.ChangeQuery,
    "fields": IDEMPOTENCY_KEY,
    "shows": ("ETag", "Idempotent-Replayed"),
    "refuses": (409, 422),
    "status": 201,
}
