"""The metric store's rows: groups of series on one step grid, their frames, their headline values."""

from __future__ import annotations

from django.db import models

from .runs import Run


class Group(models.Model):
    """Series of a run that share their steps; `names` in column order.

    If a later attempt records other names, a row with the next version takes its frames.
    """

    run = models.ForeignKey(Run, models.SET_NULL, null=True, related_name="groups")  # null: deleted
    name = models.CharField(max_length=16)
    version = models.IntegerField(default=0)
    names = models.JSONField()
    stats = models.BinaryField(default=b"", help_text="headline state of every column; see store.headline")
    rows = models.BigIntegerField(default=0, help_text="points recorded of each series")
    sealed = models.BigIntegerField(default=0, help_text="how many of them, from the first on, stand in blocks")
    sealed_step = models.BigIntegerField(default=-1, help_text="step of the last sealed row")
    first_step = models.BigIntegerField(default=0, help_text="step of the first row")
    stride = models.BigIntegerField(default=0, help_text="steps between sealed rows; 0 where they differ")
    archived = models.BigIntegerField(
        default=0, db_column="parcelled", help_text="how many sealed rows were archived, or found too small to be"
    )
    thinned = models.JSONField(default=list, help_text="the finest level kept of each column; empty: every point")
    thin_done = models.CharField(max_length=250, default="", blank=True, help_text="the retention rule applied")
    revision = models.BigIntegerField(default=0, help_text="bumped by sealing and truncation, so that readers notice")

    class Meta:
        constraints = [models.UniqueConstraint(fields=["run", "name", "version"], name="one_group_per_version")]
        indexes = [
            # The reconciler's sweep: rows that a worker left unsealed.
            models.Index(fields=["run"], name="group_unsealed", condition=models.Q(rows__gt=models.F("sealed")))
        ]

    def __str__(self) -> str:
        return f"{self.name} of run {self.run_id}"


class Frame(models.Model):
    """A batch of consecutive steps × all series of one group, as a trainer flushed it. See store.codec."""

    group = models.ForeignKey(Group, models.CASCADE, related_name="frames")
    first_step = models.BigIntegerField()
    last_step = models.BigIntegerField(help_text="step of the last row, inclusive")
    first_row = models.BigIntegerField(default=0, help_text="position of the first row in the group")
    rows = models.IntegerField()
    data = models.BinaryField()

    class Meta:
        ordering = ["first_step"]
        constraints = [models.UniqueConstraint(fields=["group", "first_step"], name="one_frame_per_step")]
        indexes = [
            # Tails and windows: the frames of a group that end at or after a step.
            models.Index(fields=["group", "last_step"], name="frame_tail")
        ]

    def __str__(self) -> str:
        return f"steps {self.first_step} to {self.last_step}"


class StepIndex(models.Model):
    """Steps and times of 4,096 consecutive rows of a group, shared by all its series. See store.seal."""

    group = models.ForeignKey(Group, models.CASCADE, related_name="step_indexes")
    number = models.IntegerField()
    first_step = models.BigIntegerField()
    last_step = models.BigIntegerField()
    data = models.BinaryField()

    class Meta:
        db_table = "experiments_clock"
        constraints = [models.UniqueConstraint(fields=["group", "number"], name="one_clock_per_block")]
        indexes = [
            # A step's position where steps are not evenly spaced.
            models.Index(fields=["group", "last_step"], name="clock_step")
        ]

    def __str__(self) -> str:
        return f"block {self.number} of {self.group}"


class Block(models.Model):
    """A sealed piece of one series: 4,096 × 16^(level-1) rows as at most 256 buckets of 16^level rows each.

    Blocks of level 1 also hold the exact values, unless they are archived. A block of a higher level is written once
    sixteen of the level below are complete. No summary is updated in place.
    """

    group = models.ForeignKey(Group, models.CASCADE, related_name="blocks")
    column = models.IntegerField()
    level = models.SmallIntegerField()
    number = models.IntegerField()
    summary = models.BinaryField()
    data = models.BinaryField(null=True)

    class Meta:
        constraints = [
            # Reads: one column of a group, one level, a range of numbers.
            models.UniqueConstraint(fields=["group", "column", "level", "number"], name="one_block_per_place")
        ]

    def __str__(self) -> str:
        return f"block {self.number} of level {self.level}, column {self.column} of {self.group}"


class ArchivedBlock(models.Model):
    """Exact values of one block of a group's series that lie in the block storage. See store.archive."""

    group = models.ForeignKey(Group, models.CASCADE, related_name="archived_blocks")
    number = models.IntegerField()
    key = models.CharField(max_length=255, help_text="name in the block storage")
    size = models.IntegerField()
    index = models.BinaryField(help_text="length and digest of each column's bytes, which stand in order of columns")

    class Meta:
        db_table = "experiments_parcel"
        constraints = [models.UniqueConstraint(fields=["group", "number"], name="one_parcel_per_block")]
        indexes = [
            # Whether a row names an object.
            models.Index(fields=["key"], name="parcel_key")
        ]

    def __str__(self) -> str:
        return self.key


class Headline(models.Model):
    """Headline values of one series of one run, by which the runs table sorts and filters.

    Values are finite or null, since databases treat NaN differently.
    """

    run = models.ForeignKey(Run, models.CASCADE, related_name="headlines")
    key = models.CharField(max_length=100)
    last = models.FloatField(null=True)
    min = models.FloatField(null=True)
    max = models.FloatField(null=True)
    min_step = models.BigIntegerField(null=True)
    max_step = models.BigIntegerField(null=True)
    last_step = models.BigIntegerField(null=True)
    count = models.BigIntegerField(default=0)
    nonfinite = models.BigIntegerField(default=0)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["run", "key"], name="one_headline_per_series")]
        indexes = [
            # ordering=metric.<key> and metric.<key>__lt= in the runs table.
            models.Index(fields=["key", "last", "run"], name="headline_last"),
            models.Index(fields=["key", "min", "run"], name="headline_min"),
            models.Index(fields=["key", "max", "run"], name="headline_max"),
        ]

    def __str__(self) -> str:
        return f"{self.key} of run {self.run_id}"
