"""What has to stand before the web server starts: tables, the first admin, a project, static files, a demo."""

from __future__ import annotations

import secrets
import shutil
from io import StringIO
from pathlib import Path

from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.db import connection
from django.db.migrations.executor import MigrationExecutor

from attnservice.env import text

# What an empty database begins with: a minute of small runs to look at, then the longer loop.
DEMOS = (
    {
        "preset": "why-q",
        "matrix": {"model.attention.variant": ["full", "no_q", "tied_qk", "const_q"]},
        "seeds": [0],
        "notes": "A quick look: one seed decides nothing. Submit the preset as it stands for a verdict.",
    },
    {"preset": "sam3-lite-digits"},
)


def people() -> list[str]:
    """The first admin and a project, where there are none; what the user should be told once."""
    told = _admin_lines(*admin) if (admin := first_admin()) else []
    default_project()
    return told


def _admin_lines(name: str, password: str | None) -> list[str]:
    if password is None:
        return [f"Log in as {name}, with the password that you set"]
    return [f"Log in as {name} with the password  {password}", "(It is shown this once; only its hash is kept.)"]


def migrate() -> bool:
    """True when there was something to do. Asking costs a tenth of a second, `migrate` itself a whole one."""
    executor = MigrationExecutor(connection)
    if not executor.migration_plan(executor.loader.graph.leaf_nodes()):
        return False
    call_command("migrate", verbosity=0, interactive=False)
    return True


def collect_static(into: Path) -> None:
    """Gather, hash and compress the static files anew."""
    shutil.rmtree(into, ignore_errors=True)
    call_command("collectstatic", verbosity=0, interactive=False, stdout=StringIO())


def first_admin() -> tuple[str, str | None] | None:
    """(name, password) of an admin made now, None where one exists. A password that the user gave is not told."""
    users = get_user_model().objects
    if users.filter(is_superuser=True).exists():
        return None
    name, given = text("ATTN_ADMIN_USER") or "admin", text("ATTN_ADMIN_PASSWORD")
    password = given or secrets.token_urlsafe(12)
    users.create_superuser(username=name, password=password)
    return name, None if given else password


def default_project() -> None:
    """Somewhere to submit to, owned by the first admin. Left alone once there is any project."""
    from experiments.models import Membership, Project, Role

    if Project.objects.exists():
        return
    owner = get_user_model().objects.filter(is_superuser=True).order_by("pk").first()
    project = Project.objects.create(name="default")
    if owner:
        Membership.objects.create(project=project, user=owner, role=Role.OWNER)


def submit_demos() -> list[str]:
    """The first experiments of an empty database, the quick one first; their names, none where there are any."""
    from experiments.lifecycle import submit
    from experiments.models import Experiment, Project
    from experiments.submissions.presets import presets
    from experiments.submissions.submission import plan

    if Experiment.objects.exists():
        return []
    owner = get_user_model().objects.filter(is_superuser=True).order_by("pk").first()
    planned = [plan({"name": presets()[str(demo["preset"])].title.en, **demo}) for demo in DEMOS]
    for each in planned:
        submit(each, project=Project.objects.order_by("pk")[0], user=owner)
    return [each.submission.name for each in planned]
