"""The edge: one host's proxy, its workers and their supervisor. It never imports the collector."""
