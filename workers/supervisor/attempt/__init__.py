"""What happens to one attempt: claim to end, lease, watchdog, quotas, uploads."""
