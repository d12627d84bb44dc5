"""The database: the contract, and SQLite as its first implementation."""
