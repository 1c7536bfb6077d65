"""Commands for a collector's database, with or without a running collector."""
