"""Runs over REST: the table, one run, its outputs and forks."""
