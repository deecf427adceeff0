"""Real processes, killed and frozen at random from a seed: `python -m tests.chaos --help`. Nothing here may import
tests.environment, which points Django at the database of a test process.
"""
