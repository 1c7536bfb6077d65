"""Reports on the business: revenue, bookkeeping, status, and the figures of the roll-out gates.

Owns figures, and changes nothing except for the close of a day's books. Does not own metrics or pages, which show them.
"""
