"""A worker process: it accepts connections, obeys its supervisor, and changes configurations."""
