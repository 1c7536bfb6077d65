"""What commands do with a collector's database, whether a collector runs on it meanwhile or not."""
