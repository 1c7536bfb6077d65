"""Memory-mapped tables: what is counted, in files that outlive every process that counts."""
