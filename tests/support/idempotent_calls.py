"""Calls of endpoints that carry an Idempotency-Key, without HTTP."""

from types import SimpleNamespace
from typing import Any

from edgeproxy.collector.api.endpoint import CREATE
from tests.support.credited import ALICE


def build_call(key: str, body: object = None) -> Any:
    """Return a call with an Idempotency-Key, for handlers of changes."""
    return SimpleNamespace(
        endpoint=SimpleNamespace(change=CREATE, hides=None),
        query=SimpleNamespace(dry_run=False),
        caller=ALICE,
        body=body,
        raw_body=b"{}",
        request=SimpleNamespace(
            method="POST", path_qs="/x", headers={"Idempotency-Key": key}, get=dict[str, Any]().get
        ),
    )
