"""Django's SQLite with a queue before the write lock (docs/decisions/0043)."""
