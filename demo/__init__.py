"""What `./scripts/run` serves: a real API behind a real edge, and a tour of what the edge does."""
