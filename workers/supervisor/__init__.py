"""One attempt of a run under supervision: no torch here."""
