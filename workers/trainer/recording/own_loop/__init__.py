"""Recording for training loops that are not ours."""
