"""The inspection worker: a Celery worker that answers questions about checkpoints, and its child with torch."""
