"""The worker on this machine: who it is, its devices, its heartbeat, its drain."""
