"""The meaning of a request: its route, its customer, and the rules and rewrites that apply to both."""
