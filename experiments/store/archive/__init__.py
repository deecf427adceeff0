"""Sealed blocks outside of the database, as objects."""
