"""What the reconciler does in rounds: expired leases, retention, archiving, alarms."""
