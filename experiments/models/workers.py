"""Workers, and the leader lease of the reconciler."""

from __future__ import annotations

from datetime import timedelta

from django.conf import settings
from django.db import models
from django.db.models.functions import Now


class WorkerQuerySet(models.QuerySet["Worker"]):
    def alive(self) -> WorkerQuerySet:
        """Workers that have not stopped and sent a heartbeat within the lease time, by database time."""
        return self.filter(stopped=None, last_seen__gte=Now() - timedelta(seconds=settings.ATTN_LEASE_S))


class Worker(models.Model):
    """One worker process: its host, its pools, its last heartbeat."""

    name = models.CharField(max_length=255, unique=True)
    host = models.CharField(max_length=255)
    pid = models.IntegerField()
    pools = models.JSONField(default=list)
    slots = models.IntegerField(default=1)
    device = models.CharField(max_length=255, blank=True, help_text="GPU name or CPU capability")
    info = models.JSONField(default=dict, help_text="versions, cores, GPU memory")
    started = models.DateTimeField()
    last_seen = models.DateTimeField()
    stopped = models.DateTimeField(null=True, blank=True, help_text="when it stopped; null while it works")
    backlog = models.BigIntegerField(default=0, help_text="bytes of its trainers' messages that are not stored yet")
    draining = models.BooleanField(default=False, help_text="finish or checkpoint what runs, take nothing new")

    objects = WorkerQuerySet.as_manager()

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class LeaderLease(models.Model):
    """Which process leads a named service, until when, and when it last renewed. The reconciler has one."""

    name = models.CharField(max_length=32, primary_key=True)
    owner = models.CharField(max_length=255)
    fence = models.BigIntegerField(default=0)
    lease_until = models.DateTimeField()
    renewed = models.DateTimeField(db_column="beat")

    class Meta:
        db_table = "experiments_beat"

    def __str__(self) -> str:
        return f"{self.name} by {self.owner}"
