"""The data plane: connections in and out, and the life of each request between them."""
