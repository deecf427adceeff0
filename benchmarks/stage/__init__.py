"""What several benchmarks stand on: a database, a warm web server, clocks, and the file of results."""
