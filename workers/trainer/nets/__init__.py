"""Our models."""
