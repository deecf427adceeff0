"""The worker: Celery tasks, the supervisor of one attempt, and the trainer."""
