"""The trainer as a child process: start, messages, log, end."""
