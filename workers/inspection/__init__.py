"""The Celery worker that answers questions to checkpoints, and its warm child process."""
