"""Sequences of tokens: pointer, roles, text."""
