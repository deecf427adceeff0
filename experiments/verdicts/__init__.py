"""From runs to verdicts: rules, samples, statistics, reports."""
