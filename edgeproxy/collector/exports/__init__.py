"""Usage as Parquet files in object storage, for analysis. Each closed hour of the ledger is exported once."""
