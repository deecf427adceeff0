"""Data sets and the reading of files."""
