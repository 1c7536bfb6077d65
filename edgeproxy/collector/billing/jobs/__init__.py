"""Periodic work of billing: exporting meters, and booking credits."""
