"""The table of the collector's problems. Every error answer has a code of it. Pure."""
