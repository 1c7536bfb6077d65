"""Added, updated and removed lines of drafts: each has an invoice item behind it."""

from stripe_sandbox.lists import Ids, Parameters
from stripe_sandbox.objects import invoice_items, invoice_lines
from stripe_sandbox.objects.fields import merge_metadata, require_supported
from stripe_sandbox.refusal import invalid_request
from stripe_sandbox.transaction import Body, Fields, Transaction

REFUSED = ("tax_amounts",)


def add_lines(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Add lines to a draft: new ones, or pending items."""
    invoice = _get_draft(tx, ids["id"])
    for place, line in enumerate(params["lines"]):
        require_supported(line, *REFUSED)
        if "invoice_item" not in line:
            fields = {"customer": invoice["customer"], "invoice": invoice["id"], **line}
            invoice_items.create(tx, {}, fields if "pricing" in line else {"currency": invoice["currency"], **fields})
            continue
        item = tx.get("invoiceitem", line["invoice_item"], f"lines[{place}][invoice_item]")
        if item["invoice"] or item["customer"] != invoice["customer"]:
            raise invalid_request("The item is not pending.", f"lines[{place}][invoice_item]")
        tx.save({**item, "invoice": invoice["id"]})
        invoice_lines.add_item(tx, invoice, item, invoice_lines.ADDED)
    return _add_up(tx, ids["id"], params)


def update_lines(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Update lines of a draft."""
    _get_draft(tx, ids["id"])
    for place, line in enumerate(params["lines"]):
        change = {name: value for name, value in line.items() if name != "id"}
        _update(tx, ids["id"], line["id"], change, f"lines[{place}][id]")
    return _add_up(tx, ids["id"], params)


def update_line(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Update a line of a draft."""
    _get_draft(tx, ids["invoice_id"])
    _update(tx, ids["invoice_id"], ids["id"], params, None)
    return tx.get("line_item", ids["id"])


def remove_lines(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Remove lines of a draft: their items are deleted, or pending."""
    _get_draft(tx, ids["id"])
    for place, removal in enumerate(params["lines"]):
        line = _get_line(tx, ids["id"], removal["id"], f"lines[{place}][id]")
        item = tx.get("invoiceitem", line["_item"])
        if removal["behavior"] == "delete":
            invoice_items.delete(tx, {"id": item["id"]}, {})
        else:
            tx.save({**item, "invoice": None, "_own": False})
            tx.drop(line)
    return _add_up(tx, ids["id"], params)


def _get_draft(tx: Transaction, id: str) -> Body:
    invoice = tx.get("invoice", id)
    invoice_items.require_editable(invoice)
    return invoice


def _get_line(tx: Transaction, invoice: str, id: str, param: str | None) -> Body:
    line = tx.get("line_item", id, param)
    if line["invoice"] != invoice:
        raise invalid_request("The line belongs to another invoice.", param)
    if "_item" not in line:
        raise invalid_request("Lines of subscriptions cannot be changed.", param)
    return line


def _update(tx: Transaction, invoice: str, id: str, change: Fields, param: str | None) -> None:
    require_supported(change, *REFUSED)
    invoice_items.update(tx, {"id": _get_line(tx, invoice, id, param)["_item"]}, change)


def _add_up(tx: Transaction, id: str, params: Parameters) -> Body:
    invoice = invoice_lines.compute_totals(tx, tx.get("invoice", id))
    if "invoice_metadata" in params:
        merge_metadata(invoice, {"metadata": params["invoice_metadata"]})
        tx.save(invoice)
    tx.record_event("invoice.updated", invoice)
    return invoice
