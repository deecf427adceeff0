"""The ways in: orders from a supervisor, a spec on the command line, questions."""
