"""What calls that create or update objects have in common."""

from collections.abc import Mapping
from typing import Any

from edgeproxy.stripe_sandbox.refusal import invalid_request, unsupported
from edgeproxy.stripe_sandbox.transaction import Body, Transaction


def set_fields(body: Body, p: Mapping[str, Any], *names: str) -> None:
    """Take these parameters as they are; an empty one unsets."""
    for name in names:
        if name in p:
            body[name] = None if p[name] == "" else p[name]


def merge_metadata(body: Body, p: Mapping[str, Any], name: str = "metadata") -> None:
    """Merge metadata: an empty value takes its key out, an empty string all."""
    metadata = dict(body.get(name) or {})
    change = p.get(name)
    if change == "":
        metadata = {}
    for key, value in (change or {}).items():
        if value == "":
            metadata.pop(key, None)
        else:
            metadata[key] = value
    body[name] = metadata


def compute_previous_attributes(before: Mapping[str, Any], after: Mapping[str, Any]) -> Body:
    """What `previous_attributes` of an event says: fields that were otherwise."""
    return {
        name: value
        for name, value in before.items()
        if not name.startswith("_") and name in after and after[name] != value
    }


def require_supported(p: Mapping[str, Any], *names: str) -> None:
    """Refuse parameters that Stripe knows and the sandbox does not."""
    for name in names:
        if p.get(name) not in (None, "", [], {}):
            raise unsupported(f"the parameter {name}", name)


def get_customer(tx: Transaction, p: Mapping[str, Any]) -> Body:
    """The customer that a call names, who must be there."""
    require_supported(p, "customer_account")
    if "customer" not in p:
        raise invalid_request("Missing required param: customer.", "customer", "parameter_missing")
    return tx.get("customer", p["customer"], "customer")


def parse_currency(written: str) -> str:
    """A currency, in lower case."""
    lower = written.lower()
    if len(lower) != 3 or not lower.isalpha() or not lower.isascii():
        raise invalid_request(f"Invalid currency: {written}.", "currency")
    return lower


def set_test_clock(made: Body, customer: Mapping[str, Any]) -> Body:
    """An object that lives by the test clock of its customer."""
    made["test_clock"] = customer.get("test_clock")
    return made
