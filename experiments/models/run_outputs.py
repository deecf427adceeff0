"""What a run leaves besides series: events, checkpoints, artifacts and log lines."""

from __future__ import annotations

from collections.abc import Iterable

from django.db import models

from experiments.states import Actor

from .runs import Run


class Event(models.Model):
    """One event of a run; append-only, written in the transaction of the move it records."""

    run = models.ForeignKey(Run, models.CASCADE, related_name="events")
    at = models.DateTimeField()
    actor = models.CharField(max_length=10, choices=[(a, a) for a in Actor])
    who = models.CharField(max_length=255, blank=True, help_text="user, worker or reconciler, by name")
    kind = models.CharField(max_length=20, help_text="the state moved to, or what was asked for")
    from_state = models.CharField(max_length=10, blank=True)
    to_state = models.CharField(max_length=10, blank=True)
    fence = models.BigIntegerField(default=0)
    step = models.BigIntegerField(null=True)
    message = models.TextField(blank=True)

    class Meta:
        ordering = ["id"]

    def __str__(self) -> str:
        return f"{self.kind} at {self.at:%Y-%m-%d %H:%M:%S}"


class Checkpoint(models.Model):
    """A published checkpoint: its file was durable before this row was written."""

    run = models.ForeignKey(Run, models.CASCADE, related_name="checkpoints")
    fence = models.BigIntegerField()
    step = models.BigIntegerField()
    path = models.CharField(max_length=255, help_text="name in the artifact storage")
    sha256 = models.CharField(max_length=64)
    size = models.BigIntegerField()
    created = models.DateTimeField(auto_now_add=True)
    score = models.FloatField(null=True, help_text="of the evaluation at this step, higher is better; null without one")
    stats = models.BinaryField(default=b"", help_text="headline state of all groups at this step")

    class Meta:
        ordering = ["-step", "-id"]
        constraints = [models.UniqueConstraint(fields=["run", "fence", "step"], name="one_checkpoint_per_step")]
        indexes = [
            # Whether another row names a file: a fork names its parent's.
            models.Index(fields=["path"], name="checkpoint_path")
        ]

    def __str__(self) -> str:
        return f"checkpoint at {self.step} of run {self.run_id}"


class Artifact(models.Model):
    """A file that a run produced: a picture of predictions, a map, any file."""

    run = models.ForeignKey(Run, models.CASCADE, related_name="artifacts")
    fence = models.BigIntegerField()
    kind = models.CharField(max_length=16)
    name = models.CharField(max_length=200)
    step = models.BigIntegerField(null=True)
    media_type = models.CharField(max_length=100)
    path = models.CharField(max_length=255, help_text="name in the artifact storage")
    size = models.BigIntegerField()
    meta = models.JSONField(default=dict)
    created = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["id"]
        constraints = [models.UniqueConstraint(fields=["run", "kind", "name", "step"], name="one_artifact_per_name")]
        indexes = [
            # The predictions panel: pictures of one kind, newest step first.
            models.Index(fields=["run", "kind", "-step"], name="artifact_kind")
        ]

    def __str__(self) -> str:
        return self.name


class PendingDeletionQuerySet(models.QuerySet["PendingDeletion"]):
    def schedule(self, paths: Iterable[str]) -> None:
        """Files of the artifact storage that the caller's transaction no longer names."""
        rows = [PendingDeletion(path=path) for path in sorted(set(paths))]
        self.bulk_create(rows, ignore_conflicts=True)


class PendingDeletion(models.Model):
    """A file to be removed from one of the storages unless something still names it."""

    path = models.CharField(max_length=255, unique=True)
    storage = models.CharField(max_length=16, default="default")
    doomed = models.BooleanField(default=False, help_text="its removal has begun: nothing may name it any more")

    objects = PendingDeletionQuerySet.as_manager()

    class Meta:
        db_table = "experiments_leftover"

    def __str__(self) -> str:
        return self.path


class LogChunk(models.Model):
    """Some lines of a run's log, in order of id; `?after=` pages by it."""

    run = models.ForeignKey(Run, models.CASCADE, related_name="logs")
    fence = models.BigIntegerField()
    at = models.DateTimeField(auto_now_add=True)
    text = models.TextField()

    class Meta:
        ordering = ["id"]

    def __str__(self) -> str:
        return self.text[:60]
