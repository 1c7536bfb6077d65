"""Commands that work on a collector's database, whether or not a collector runs on it meanwhile."""
