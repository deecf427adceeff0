"""Pages of runs: the table, one run with its tabs, compare, forks."""
