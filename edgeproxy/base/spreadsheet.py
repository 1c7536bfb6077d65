"""Texts that others chose, in files that people open with a spreadsheet."""

FORMULAS = ("=", "+", "-", "@", "\t", "\r")
"""What spreadsheets take for the beginning of a formula, if something follows (CSV injection, CWE-1236)."""


def escape_formula(value: str) -> str:
    """The value as a spreadsheet takes it for text: behind an apostrophe, where it would be a formula."""
    return f"'{value}" if value.startswith(FORMULAS) and len(value) > 1 else value
