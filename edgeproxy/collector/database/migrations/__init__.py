"""How the collector's database came to be as it is, and how an older one becomes so. Run when the collector starts."""
