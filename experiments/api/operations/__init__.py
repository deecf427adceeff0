"""The service's own state over REST: workers, queue, health, metrics."""
