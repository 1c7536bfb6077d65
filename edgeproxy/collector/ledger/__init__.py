"""The ledger: batches that are counted once, their usage, and the proof that both agree."""
