"""The ledger: each batch taken once, what was used, and the proof that both agree."""
