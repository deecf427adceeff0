"""From a submission to runs: presets, matrix, errors, estimates, forks."""
