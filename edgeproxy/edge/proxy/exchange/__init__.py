"""The life of one request, from its head to the end of its response, and what a worker shares among requests."""
