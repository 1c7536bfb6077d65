"""What is recorded of each request: its state, its ids, its line in the access log, its spans."""
