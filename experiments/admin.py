"""The service's objects in Django's admin: people and projects are edited here, runs are read-only."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.contrib.auth.admin import GroupAdmin, UserAdmin
from django.contrib.auth.models import Group, User
from django.db.models import Count, Model, QuerySet
from django.http import HttpRequest, HttpResponseRedirect
from django.urls import reverse
from knox.models import AuthToken
from unfold.admin import ModelAdmin, TabularInline
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm

from experiments import lifecycle
from experiments.models import Artifact, Attempt, Checkpoint, Event, Experiment, Membership, Project, Run, Worker

COMPARABLE = range(2, 101)


class ReadOnly:
    """Nothing is added, changed or deleted: only `experiments.lifecycle` writes these rows."""

    def has_add_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


class ReadOnlyInline(ReadOnly, TabularInline):  # type: ignore[misc]
    extra = 0
    tab = True

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> Any:
        return self.fields


class AttemptInline(ReadOnlyInline):
    model = Attempt
    fields = ("fence", "worker", "host", "pid", "device", "start_step", "end_step", "claimed", "ended", "outcome")


class EventInline(ReadOnlyInline):
    model = Event
    fields = ("at", "actor", "who", "kind", "from_state", "to_state", "fence", "step", "message")


class CheckpointInline(ReadOnlyInline):
    model = Checkpoint
    fields = ("step", "fence", "path", "size", "sha256", "created")


class ArtifactInline(ReadOnlyInline):
    model = Artifact
    fields = ("kind", "name", "step", "fence", "media_type", "size", "path")


class MembershipInline(TabularInline):  # type: ignore[misc]
    model = Membership
    extra = 1
    autocomplete_fields = ("user",)


@admin.register(Project)
class ProjectAdmin(ModelAdmin):  # type: ignore[misc]
    list_display = ("name", "created", "max_running", "thin_days", "delete_days", "members_count")
    search_fields = ("name",)
    inlines = (MembershipInline,)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Project]:
        rows: QuerySet[Project] = super().get_queryset(request)
        return rows.annotate(member_count=Count("memberships"))

    @admin.display(description="members")
    def members_count(self, project: Any) -> int:
        return int(project.member_count)


@admin.register(Experiment)
class ExperimentAdmin(ReadOnly, ModelAdmin):  # type: ignore[misc]
    list_display = ("id", "name", "project", "preset", "pool", "priority", "created_by", "created")
    list_display_links = ("id", "name")
    list_filter = ("project", "preset", "pool")
    list_select_related = ("project", "created_by")
    search_fields = ("name", "notes")
    exclude = ("idempotency_key",)


@admin.register(Run)
class RunAdmin(ReadOnly, ModelAdmin):  # type: ignore[misc]
    list_display = ("id", "experiment", "project", "state", "progress", "seed", "pool", "worker", "created", "finished")
    list_filter = ("state", "project", "pool", "reason", "created")
    list_select_related = ("experiment", "project", "worker")
    search_fields = ("id", "experiment__name", "worker__name")
    list_per_page = 50
    show_full_result_count = False
    inlines = (AttemptInline, EventInline, CheckpointInline, ArtifactInline)
    actions = ("compare",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Run]:
        rows: QuerySet[Run] = super().get_queryset(request)
        return rows.defer("experiment__spec", "experiment__matrix", "experiment__notes")

    @admin.display(description="steps", ordering="committed_step")
    def progress(self, run: Run) -> str:
        return f"{run.committed_step:,} / {run.steps:,}"

    @admin.action(description="Compare selected runs", permissions=["view"])
    def compare(self, request: HttpRequest, runs: QuerySet[Run]) -> HttpResponseRedirect | None:
        """Opens the compare page, whose address names the runs."""
        ids = sorted(runs.values_list("pk", flat=True)[: COMPARABLE.stop])
        if len(ids) not in COMPARABLE:
            message = f"Select {COMPARABLE.start} to {COMPARABLE.stop - 1} runs to compare."
            self.message_user(request, message, messages.WARNING)
            return None
        return HttpResponseRedirect(f"{reverse('compare')}?runs={','.join(map(str, ids))}")


@admin.register(Worker)
class WorkerAdmin(ReadOnly, ModelAdmin):  # type: ignore[misc]
    list_display = ("name", "host", "pools", "slots", "device", "draining", "started", "last_seen")
    list_filter = ("draining",)
    search_fields = ("name", "host")
    actions = ("drain", "undrain")

    def has_drain_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("experiments.change_worker")

    @admin.action(description="Drain: finish or checkpoint runs, take no new ones", permissions=["drain"])
    def drain(self, request: HttpRequest, workers: QuerySet[Worker]) -> None:
        self.message_user(request, f"{self._set_draining(request, workers, True)} worker(s) are draining.")

    @admin.action(description="End draining: take new runs again", permissions=["drain"])
    def undrain(self, request: HttpRequest, workers: QuerySet[Worker]) -> None:
        self.message_user(request, f"{self._set_draining(request, workers, False)} worker(s) take new runs.")

    def _set_draining(self, request: HttpRequest, workers: QuerySet[Worker], draining: bool) -> int:
        names = list(workers.values_list("name", flat=True))
        for name in names:
            lifecycle.drain_worker(name, draining, request.user)  # type: ignore[arg-type]
        return len(names)


admin.site.unregister([User, Group, AuthToken])


@admin.register(User)
class PersonAdmin(UserAdmin, ModelAdmin):  # type: ignore[misc, type-arg]
    form = UserChangeForm
    add_form = UserCreationForm
    change_password_form = AdminPasswordChangeForm


@admin.register(Group)
class PeopleAdmin(GroupAdmin, ModelAdmin):  # type: ignore[misc]
    pass


@admin.register(AuthToken)
class TokenAdmin(ModelAdmin):  # type: ignore[misc]
    """Tokens can be revoked here, not made or read: only their digests are stored."""

    list_display = ("user", "created", "expiry")
    list_display_links = None  # a token's name is its digest
    list_select_related = ("user",)
    search_fields = ("user__username",)
    fields = ("user", "created", "expiry")
    readonly_fields = fields

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False
