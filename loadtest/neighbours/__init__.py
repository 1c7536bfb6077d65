"""The neighbour bench: the waits of a well-behaved client beside one kind of hostile traffic after another."""
