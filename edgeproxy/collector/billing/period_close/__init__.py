"""The end of a billing period: billed quantities, invoice lines, and bringing the invoice to Stripe once."""
