"""Access: whether a customer may call now, and each limit that may refuse it."""
