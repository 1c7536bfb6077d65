"""What a customer sees, tried from outside: a request with a key, its limit fields, its usage in the ledger."""
