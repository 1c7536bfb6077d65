"""Usage as Parquet files in object storage, for whoever analyses it: each closed hour of the ledger once."""
