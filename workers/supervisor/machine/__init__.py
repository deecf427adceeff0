"""The worker on this machine: its identity, devices, heartbeat, drain and shutdown."""
