"""The database of the collector: SQLite or PostgreSQL, its tables, transactions and migrations."""
