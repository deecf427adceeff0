"""What the web server needs before it starts: tables, the first admin, a project, static files, demo runs."""

from __future__ import annotations

import secrets
import shutil
from io import StringIO
from pathlib import Path

from django.contrib.auth import get_user_model
from django.core.management import call_command

from attnservice.env import text
from experiments.maintenance.migrations import migrations

# Submitted to an empty database: a minute of small runs, then a longer one.
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
    """Make the first admin and a project, if there are none. Returns messages that the user sees once."""
    messages = _admin_lines(*admin) if (admin := first_admin()) else []
    default_project()
    return messages


def _admin_lines(name: str, password: str | None) -> list[str]:
    if password is None:
        return [f"Sign in as {name}, with the password that you set"]
    return [f"Sign in as {name} with the password  {password}", "(Shown only now; only its hash is stored.)"]


def migrate() -> bool:
    """True if migrations were applied. The check costs 0.1 s, `migrate` itself 1 s."""
    if not migrations().unapplied:
        return False
    call_command("migrate", verbosity=0, interactive=False)
    return True


def collect_static(into: Path) -> None:
    """Collect, hash and compress the static files again."""
    shutil.rmtree(into, ignore_errors=True)
    call_command("collectstatic", verbosity=0, interactive=False, stdout=StringIO())


def first_admin() -> tuple[str, str | None] | None:
    """(name, password) of the admin made now, None if one exists. A password from the environment is not returned."""
    users = get_user_model().objects
    if users.filter(is_superuser=True).exists():
        return None
    name, given = text("ATTN_ADMIN_USER") or "admin", text("ATTN_ADMIN_PASSWORD")
    password = given or secrets.token_urlsafe(12)
    users.create_superuser(username=name, password=password)
    return name, None if given else password


def default_project() -> None:
    """A first project, owned by the first admin. Does nothing if there is any project."""
    from experiments.models import Membership, Project, Role

    if Project.objects.exists():
        return
    owner = get_user_model().objects.filter(is_superuser=True).order_by("pk").first()
    project = Project.objects.create(name="default")
    if owner:
        Membership.objects.create(project=project, user=owner, role=Role.OWNER)


def submit_demos() -> list[str]:
    """Submit the first experiments to an empty database, the quick one first. Returns their names."""
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
