"""Runs, their attempts and their parameters."""

from __future__ import annotations

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from experiments.spec.identity import Identity
from experiments.states import ENDED, HELD, Desired, Reason, State

from .definitions import AnyUser, Experiment, Project
from .fields import OrderedJSON


class RunQuerySet(models.QuerySet["Run"]):
    def visible_to(self, user: AnyUser) -> RunQuerySet:
        """Runs of projects that the user may see."""
        if getattr(user, "is_superuser", False):
            return self
        return self.filter(project__in=Project.objects.visible_to(user))

    def editable_by(self, user: AnyUser) -> RunQuerySet:
        """Runs that the user may cancel and retry."""
        return self.filter(project__in=Project.objects.editable_by(user))

    def ready(self, pool: str) -> RunQuerySet:
        """Runs that a worker of the pool may claim now, by priority and age."""
        return self.claimable().filter(pool=pool).by_priority()

    def by_priority(self) -> RunQuerySet:
        """The order inside a lane: highest priority first, then oldest."""
        return self.order_by("-priority", "id")

    def claimable(self) -> RunQuerySet:
        """Runs that may be claimed now, of any pool; `experiments.queue.order` says which is next."""
        due = Q(next_at__isnull=True) | Q(next_at__lte=Now())
        return self.filter(due, state=State.QUEUED, desired=Desired.RUN)

    def held(self) -> RunQuerySet:
        """Runs that a worker holds."""
        return self.filter(state__in=HELD)

    def expired(self) -> RunQuerySet:
        """Held runs whose lease has expired, by database time."""
        return self.held().filter(lease_until__lt=Now())


class Run(models.Model):
    """One resolved spec, executed. Only `experiments.lifecycle` writes its state."""

    experiment = models.ForeignKey(Experiment, models.CASCADE, related_name="runs")
    project = models.ForeignKey(Project, models.PROTECT, related_name="runs")
    index = models.IntegerField(help_text="position in the experiment's expansion")
    seed = models.BigIntegerField()
    params = OrderedJSON(default=dict, help_text="what the matrix chose: dotted path → value")
    spec = OrderedJSON()
    spec_hash = models.CharField(max_length=64)
    steps = models.BigIntegerField(help_text="steps to do")
    pool = models.CharField(max_length=32)
    priority = models.IntegerField(default=0)
    lane = models.ForeignKey("Lane", models.PROTECT, null=True, related_name="runs", db_index=False)

    state = models.CharField(max_length=10, choices=[(s, s) for s in State], default=State.QUEUED)
    desired = models.CharField(max_length=6, choices=[(d, d) for d in Desired], default=Desired.RUN)
    reason = models.CharField(max_length=16, choices=[(r, r) for r in Reason], blank=True, default=Reason.NONE)
    detail = models.TextField(blank=True, help_text="the reason in words, with a traceback where there is one")

    fence = models.BigIntegerField(default=0, help_text="bumped by every claim; outdates earlier holders")
    lease_until = models.DateTimeField(null=True, help_text="until when the holder has the run, in database time")
    worker = models.ForeignKey("Worker", models.SET_NULL, null=True, blank=True, related_name="runs")
    committed_step = models.BigIntegerField(default=0, help_text="completed steps whose points are stored")
    checkpoint_step = models.BigIntegerField(default=0, help_text="completed steps in the newest checkpoint")
    crash_count = models.IntegerField(default=0, help_text="crashes in a row with no new checkpoint")
    next_at = models.DateTimeField(null=True, help_text="back-off: not to be claimed before")

    parent = models.ForeignKey("self", models.SET_NULL, null=True, blank=True, related_name="forks")
    parent_step = models.BigIntegerField(null=True, help_text="completed steps of the parent that a fork starts with")

    created = models.DateTimeField(auto_now_add=True)
    started = models.DateTimeField(null=True, help_text="first step of the first attempt; series times count from it")
    finished = models.DateTimeField(null=True)
    series_digest = models.CharField(
        max_length=64, blank=True, db_default="", help_text="of what a succeeded run recorded; see store.digest"
    )

    # With the spec hash the key by which verdicts pool runs (experiments.spec.identity), of the newest started attempt.
    data_digest = models.CharField(max_length=64, blank=True, db_default="", help_text="of the files that were read")
    revision = models.IntegerField(null=True, help_text="of the training code")
    torch = models.CharField(max_length=32, blank=True, db_default="", help_text="major.minor")
    device_kind = models.CharField(max_length=32, blank=True, db_default="", help_text="cpu or cuda")

    objects = RunQuerySet.as_manager()

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(fields=["experiment", "index"], name="one_run_per_index"),
            models.CheckConstraint(
                condition=Q(committed_step__gte=models.F("checkpoint_step")), name="no_checkpoint_past_progress"
            ),
        ]
        indexes = [
            # The claim: the best and the oldest queued run of a lane.
            models.Index(fields=["lane", "-priority", "id"], name="run_lane_best", condition=Q(state=State.QUEUED)),
            models.Index(fields=["lane", "id"], name="run_lane_oldest", condition=Q(state=State.QUEUED)),
            # The best queued runs of a pool, for the doorbell.
            models.Index(fields=["pool", "-priority", "id"], name="run_ready", condition=Q(state=State.QUEUED)),
            # The reconciler's sweep of held runs, oldest lease first.
            models.Index(fields=["lease_until"], name="run_lease", condition=Q(state__in=HELD)),
            # The runs table, filtered by state or project, newest first.
            models.Index(fields=["state", "-id"], name="run_state"),
            models.Index(fields=["project", "-id"], name="run_project"),
            # Runs that would train to the same result.
            models.Index(fields=["spec_hash"], name="run_spec_hash"),
            # The reconciler's sweep: succeeded runs whose series have no digest yet.
            models.Index(fields=["-id"], name="run_undigested", condition=Q(state=State.SUCCEEDED, series_digest="")),
        ]

    def __str__(self) -> str:
        return f"run {self.pk} ({self.state})"

    @property
    def ended(self) -> bool:
        return self.state in ENDED

    @property
    def identity(self) -> Identity:
        return Identity(self.data_digest, self.revision, self.torch, self.device_kind)


class Attempt(models.Model):
    """One attempt to execute a run, numbered by its fence."""

    run = models.ForeignKey(Run, models.CASCADE, related_name="attempts")
    fence = models.BigIntegerField()
    worker = models.ForeignKey("Worker", models.SET_NULL, null=True, related_name="attempts")
    host = models.CharField(max_length=255, blank=True)
    pid = models.IntegerField(null=True, help_text="the trainer's process id on its host")
    device = models.CharField(max_length=255, blank=True)
    start_step = models.BigIntegerField(default=0)
    end_step = models.BigIntegerField(null=True)
    claimed = models.DateTimeField()
    started = models.DateTimeField(null=True)
    ended = models.DateTimeField(null=True)
    outcome = models.CharField(max_length=16, blank=True, help_text="the state or reason it ended with")
    info = models.JSONField(default=dict, help_text="parameters, sites, versions, as the trainer reported them")

    class Meta:
        ordering = ["-fence"]
        constraints = [models.UniqueConstraint(fields=["run", "fence"], name="one_attempt_per_fence")]

    def __str__(self) -> str:
        return f"attempt {self.fence} of run {self.run_id}"


class Param(models.Model):
    """One leaf of a run's resolved spec, typed and indexed, for `param.<path>=` and the table's columns."""

    run = models.ForeignKey(Run, models.CASCADE, related_name="param_rows")
    key = models.CharField(max_length=100)
    text = models.CharField(max_length=200, help_text="the value as JSON without quotes around strings")
    number = models.FloatField(null=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["run", "key"], name="one_param_per_key")]
        indexes = [
            # Filters: equality on text, ranges on number, then runs in order.
            models.Index(fields=["key", "text", "run"], name="param_text"),
            models.Index(fields=["key", "number", "run"], name="param_number"),
        ]

    def __str__(self) -> str:
        return f"{self.key}={self.text}"
