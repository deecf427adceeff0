"""REST under /api/v1/, by subject."""
