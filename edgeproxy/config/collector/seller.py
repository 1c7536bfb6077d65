"""Settings of `billing.seller` in collector.yaml: the seller on the pages of invoices, and on Stripe's."""

from typing import Annotated

from pydantic import Field

from edgeproxy.config.field_types import Sentence
from edgeproxy.config.part import Part


class Seller(Part):
    """The seller, on pages of invoices and in the footer of Stripe's invoices."""

    name: Sentence = Field(description="Name of the company.")
    address: Annotated[tuple[Sentence, ...], Field(max_length=6)] = Field(
        default=(), description="Lines of the company's address."
    )
    tax_number: Sentence | None = Field(default=None, description="Tax number of the company, such as a VAT number.")
