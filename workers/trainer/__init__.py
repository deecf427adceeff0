"""The laboratory: torch, no Django, no Celery."""
