"""The web UI's views, by subject."""
