"""Lines of drafts, put on, changed and taken off by themselves: each has an invoice item behind it."""

from collections.abc import Mapping
from typing import Any

from edgeproxy.stripe_sandbox.lists import Ids, Parameters
from edgeproxy.stripe_sandbox.objects import invoice_items, invoice_lines
from edgeproxy.stripe_sandbox.objects.fields import put_metadata, refuse
from edgeproxy.stripe_sandbox.refusal import invalid
from edgeproxy.stripe_sandbox.transaction import Body, Transaction

REFUSED = ("discounts", "price_data", "tax_amounts")


def add(tx: Transaction, ids: Ids, p: Parameters) -> Body:
    """Put lines on a draft: new ones, or items that are pending."""
    invoice = _draft(tx, ids["id"])
    for place, line in enumerate(p["lines"]):
        refuse(line, *REFUSED)
        if "invoice_item" not in line:
            said = {"customer": invoice["customer"], "invoice": invoice["id"], **line}
            invoice_items.create(tx, {}, said if "pricing" in line else {"currency": invoice["currency"], **said})
            continue
        item = tx.get("invoiceitem", line["invoice_item"], f"lines[{place}][invoice_item]")
        if item["invoice"] or item["customer"] != invoice["customer"]:
            raise invalid("The item is not pending.", f"lines[{place}][invoice_item]")
        tx.save({**item, "invoice": invoice["id"]})
        invoice_lines.add_item(tx, invoice, item, invoice_lines.ADDED)
    return _totaled(tx, ids["id"], p)


def update(tx: Transaction, ids: Ids, p: Parameters) -> Body:
    """Change lines of a draft."""
    _draft(tx, ids["id"])
    for place, line in enumerate(p["lines"]):
        said = {name: value for name, value in line.items() if name != "id"}
        _update(tx, ids["id"], line["id"], said, f"lines[{place}][id]")
    return _totaled(tx, ids["id"], p)


def update_one(tx: Transaction, ids: Ids, p: Parameters) -> Body:
    """Change a line of a draft."""
    _draft(tx, ids["invoice_id"])
    _update(tx, ids["invoice_id"], ids["id"], p, None)
    return tx.get("line_item", ids["id"])


def remove(tx: Transaction, ids: Ids, p: Parameters) -> Body:
    """Take lines off a draft: their items are deleted, or pending."""
    _draft(tx, ids["id"])
    for place, said in enumerate(p["lines"]):
        line = _line(tx, ids["id"], said["id"], f"lines[{place}][id]")
        item = tx.get("invoiceitem", line["_item"])
        if said["behavior"] == "delete":
            invoice_items.delete(tx, {"id": item["id"]}, {})
        else:
            tx.save({**item, "invoice": None, "_own": False})
            tx.drop(line)
    return _totaled(tx, ids["id"], p)


def _draft(tx: Transaction, id: str) -> Body:
    invoice = tx.get("invoice", id)
    invoice_items.editable(invoice)
    return invoice


def _line(tx: Transaction, invoice: str, id: str, param: str | None) -> Body:
    line = tx.get("line_item", id, param)
    if line["invoice"] != invoice:
        raise invalid("The line belongs to another invoice.", param)
    if "_item" not in line:
        raise invalid("Lines of subscriptions cannot be changed.", param)
    return line


def _update(tx: Transaction, invoice: str, id: str, said: Mapping[str, Any], param: str | None) -> None:
    refuse(said, *REFUSED)
    invoice_items.update(tx, {"id": _line(tx, invoice, id, param)["_item"]}, said)


def _totaled(tx: Transaction, id: str, p: Parameters) -> Body:
    invoice = invoice_lines.total(tx, tx.get("invoice", id))
    if "invoice_metadata" in p:
        put_metadata(invoice, {"metadata": p["invoice_metadata"]})
        tx.save(invoice)
    tx.emit("invoice.updated", invoice)
    return invoice
