"""The steps, each a file. What one says is never changed once it was released."""
