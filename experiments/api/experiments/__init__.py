"""Experiments over REST: submit, list, reports, presets, projects."""
