"""How invoices get to Stripe: by items that are rated here, or by meters that Stripe rates."""
