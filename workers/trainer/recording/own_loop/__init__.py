"""Recording of users' own training loops."""
