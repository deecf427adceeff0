"""Pointer and roles: every token names the content of another."""
