"""Everything that reads series."""
