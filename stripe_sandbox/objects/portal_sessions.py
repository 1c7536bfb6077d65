"""Sessions of the customer portal: links to a page with a customer's invoices, at `/_sandbox/portal/ID`."""

from stripe_sandbox.lists import Ids, Parameters
from stripe_sandbox.objects.fields import require_supported
from stripe_sandbox.refusal import invalid_request
from stripe_sandbox.transaction import Body, Transaction, generate_id


def create(tx: Transaction, ids: Ids, parameters: Parameters) -> Body:
    """Create a portal session for the customer of the parameters."""
    require_supported(parameters, "customer_account")
    if "customer" not in parameters:
        raise invalid_request("Missing required param: customer.", "customer", "parameter_missing")
    customer = tx.get("customer", parameters["customer"], "customer")
    id = generate_id("bps")
    session: Body = {
        "id": id,
        "object": "billing_portal.session",
        "configuration": parameters.get("configuration", "bpc_sandbox"),
        "created": tx.now,
        "customer": customer["id"],
        "livemode": tx.live,
        "locale": parameters.get("locale"),
        "return_url": parameters.get("return_url"),
        "url": f"{tx.account.base}/_sandbox/portal/{id}",
    }
    tx.insert(session)
    tx.record_event("billing_portal.session.created", session)
    return session
