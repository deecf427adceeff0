"""Answers to questions about a model: what it reads, what its attention does, and maps kept of it."""
