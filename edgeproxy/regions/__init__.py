"""The nearest region of a client, by the measurements of clients. Pure: time is an argument."""
