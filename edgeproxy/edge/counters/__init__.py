"""Memory-mapped tables of counts, in files that outlive every process that counts."""
