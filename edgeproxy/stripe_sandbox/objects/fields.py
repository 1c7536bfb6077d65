"""What calls that create or update objects have in common."""

from collections.abc import Mapping
from typing import Any

from edgeproxy.stripe_sandbox.refusal import invalid, unsupported
from edgeproxy.stripe_sandbox.transaction import Body, Transaction


def put(body: Body, p: Mapping[str, Any], *names: str) -> None:
    """Take these parameters as they are; an empty one unsets."""
    for name in names:
        if name in p:
            body[name] = None if p[name] == "" else p[name]


def put_metadata(body: Body, p: Mapping[str, Any], name: str = "metadata") -> None:
    """Merge metadata: an empty value takes its key out, an empty string all."""
    kept = dict(body.get(name) or {})
    said = p.get(name)
    if said == "":
        kept = {}
    for key, value in (said or {}).items():
        if value == "":
            kept.pop(key, None)
        else:
            kept[key] = value
    body[name] = kept


def changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> Body:
    """What `previous_attributes` of an event says: fields that were otherwise."""
    return {
        name: value
        for name, value in before.items()
        if not name.startswith("_") and name in after and after[name] != value
    }


def refuse(p: Mapping[str, Any], *names: str) -> None:
    """Refuse parameters that Stripe knows and the sandbox does not."""
    for name in names:
        if p.get(name) not in (None, "", [], {}):
            raise unsupported(f"the parameter {name}", name)


def customer_of(tx: Transaction, p: Mapping[str, Any]) -> Body:
    """The customer that a call names, who must be there."""
    refuse(p, "customer_account")
    if "customer" not in p:
        raise invalid("Missing required param: customer.", "customer", "parameter_missing")
    return tx.get("customer", p["customer"], "customer")


def currency_of(written: str) -> str:
    """A currency, in lower case."""
    lower = written.lower()
    if len(lower) != 3 or not lower.isalpha() or not lower.isascii():
        raise invalid(f"Invalid currency: {written}.", "currency")
    return lower


def with_clock(made: Body, customer: Mapping[str, Any]) -> Body:
    """An object that lives by the test clock of its customer."""
    made["test_clock"] = customer.get("test_clock")
    return made
