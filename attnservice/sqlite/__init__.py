"""Django's SQLite with a throttle before the write lock (docs/decisions/0043)."""
