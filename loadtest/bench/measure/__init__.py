"""What is read off: CPU a request, latency, memory, and whether the answers were right."""
