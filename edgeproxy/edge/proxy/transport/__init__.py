"""One thing each, below requests: TLS, addresses, turns of the loop, memory, deadlines, framing."""
