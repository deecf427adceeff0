"""What every page shares: access, address, session, YAML as text."""
