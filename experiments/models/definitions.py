"""Projects, their members, and experiments."""

from __future__ import annotations

from django.conf import settings
from django.contrib.auth.models import AbstractBaseUser, AnonymousUser
from django.db import models

from .fields import OrderedJSON

AnyUser = AbstractBaseUser | AnonymousUser


class Role(models.TextChoices):
    """What a member may do: view; submit and cancel; or also manage members."""

    VIEWER = "viewer"
    EDITOR = "editor"
    OWNER = "owner"


class ProjectQuerySet(models.QuerySet["Project"]):
    def visible_to(self, user: AnyUser) -> ProjectQuerySet:
        """Projects that the user may see; a superuser sees all."""
        return self._of_member(user)

    def editable_by(self, user: AnyUser) -> ProjectQuerySet:
        """Projects that the user may submit to and cancel in."""
        return self._of_member(user, memberships__role__in=[Role.EDITOR, Role.OWNER])

    def owned_by(self, user: AnyUser) -> ProjectQuerySet:
        """Projects whose rules the user may change."""
        return self._of_member(user, memberships__role=Role.OWNER)

    def _of_member(self, user: AnyUser, **role: object) -> ProjectQuerySet:
        if not user.is_authenticated:
            return self.none()
        if getattr(user, "is_superuser", False):
            return self
        return self.filter(memberships__user_id=user.pk, **role)


class Project(models.Model):
    """A namespace with members."""

    name = models.SlugField(max_length=64, unique=True)
    created = models.DateTimeField(auto_now_add=True)
    max_running = models.PositiveIntegerField(
        null=True, blank=True, help_text="runs at once; empty: ATTN_PROJECT_RUNNING, 0: none at all"
    )
    thin_days = models.PositiveIntegerField(
        null=True, blank=True, help_text="thin series this many days after their run ended; empty: never"
    )
    thin_level = models.PositiveSmallIntegerField(
        default=1, choices=[(1, "16"), (2, "256"), (3, "4,096")], help_text="how many points become one bucket"
    )
    thin_names = models.CharField(
        max_length=200, default="**/head.*", help_text="names or globs of the series to thin, separated by commas"
    )
    delete_days = models.PositiveIntegerField(
        null=True,
        blank=True,
        help_text="delete failed and cancelled runs this many days after they ended; empty: never",
    )
    members = models.ManyToManyField(settings.AUTH_USER_MODEL, through="Membership", related_name="projects")

    objects = ProjectQuerySet.as_manager()

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class Membership(models.Model):
    """One user's role in one project."""

    project = models.ForeignKey(Project, models.CASCADE, related_name="memberships")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="memberships")
    role = models.CharField(max_length=8, choices=Role.choices, default=Role.EDITOR)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["project", "user"], name="one_role_per_member")]

    def __str__(self) -> str:
        return f"{self.user} as {self.role} of {self.project}"


class ExperimentQuerySet(models.QuerySet["Experiment"]):
    def visible_to(self, user: AnyUser) -> ExperimentQuerySet:
        """Experiments of projects that the user may see."""
        return self.filter(project__in=Project.objects.visible_to(user))


class Experiment(models.Model):
    """An immutable definition: a base spec, a matrix of overrides and seeds. It expands into runs."""

    project = models.ForeignKey(Project, models.PROTECT, related_name="experiments")
    name = models.CharField(max_length=200)
    preset = models.CharField(max_length=64, blank=True)
    spec = OrderedJSON(help_text="the base spec, resolved, before the matrix")
    matrix = OrderedJSON(default=dict, help_text="dotted path → list of values")
    seeds = models.JSONField(default=list)
    tags = models.JSONField(default=list)
    notes = models.TextField(blank=True)
    priority = models.IntegerField(default=0, help_text="higher goes first")
    pool = models.CharField(max_length=32)
    spec_hash = models.CharField(max_length=64, help_text="SHA-256 of base spec, matrix and seeds")
    idempotency_key = models.CharField(max_length=200, null=True, blank=True)
    request_digest = models.CharField(
        max_length=64, blank=True, db_default="", help_text="SHA-256 of the whole submission and its project"
    )
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.SET_NULL, null=True, related_name="+")
    created = models.DateTimeField(auto_now_add=True)

    objects = ExperimentQuerySet.as_manager()

    class Meta:
        ordering = ["-id"]
        constraints = [
            # A repeated POST with the same Idempotency-Key finds the first one's row.
            models.UniqueConstraint(fields=["created_by", "idempotency_key"], name="one_experiment_per_key")
        ]

    def __str__(self) -> str:
        return f"{self.name} (experiment {self.pk})"
