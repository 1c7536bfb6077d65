"""Migrations of the collector's database, which run when the collector starts."""
