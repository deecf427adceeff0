"""A lane of the queue: one user's runs in one pool and project, and how much they have used recently."""

from __future__ import annotations

from django.db import models

from .definitions import Project


class Lane(models.Model):
    """Runs keep their order inside a lane; lanes share the pool (`experiments.queue.fair_share`)."""

    pool = models.CharField(max_length=32)
    project = models.ForeignKey(Project, models.CASCADE, related_name="lanes")
    owner = models.BigIntegerField(default=0, help_text="the user who submitted, 0 for nobody")
    used = models.FloatField(default=0.0, help_text="slot seconds, halved every ATTN_SHARE_HALF_LIFE_S")
    used_at = models.DateTimeField(null=True, help_text="when `used` was computed")

    class Meta:
        constraints = [models.UniqueConstraint(fields=["pool", "project", "owner"], name="one_lane_per_owner")]

    def __str__(self) -> str:
        return f"{self.pool}: user {self.owner} in project {self.project_id}"
