"""The sections of a spec, one module per subject."""
