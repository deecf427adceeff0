"""Four models and two fields get the field's terms. Tables, columns, indexes and constraints keep their names, since
workers of the version before still write to them; only Django's rows about models, in its own tables, are changed."""

from __future__ import annotations

from typing import Any

import django.db.models.deletion
from django.db import migrations, models

RENAMED = {
    "Parcel": ("ArchivedBlock", "parcel", "archived block"),
    "Leftover": ("PendingDeletion", "leftover", "pending deletion"),
    "Clock": ("StepIndex", "clock", "step index"),
    "Beat": ("LeaderLease", "beat", "leader lease"),
}
ACTIONS = ("add", "change", "delete", "view")


def forwards(apps: Any, editor: Any) -> None:
    for old, (new, old_words, new_words) in RENAMED.items():
        _rename(apps, editor, (old.lower(), old_words), (new.lower(), new_words))


def backwards(apps: Any, editor: Any) -> None:
    for old, (new, old_words, new_words) in RENAMED.items():
        _rename(apps, editor, (new.lower(), new_words), (old.lower(), old_words))


def _rename(apps: Any, editor: Any, old: tuple[str, str], new: tuple[str, str]) -> None:
    """The content type and its permissions keep their ids, so what was granted stays granted."""
    alias = editor.connection.alias
    types = apps.get_model("contenttypes", "ContentType").objects.using(alias).filter(app_label="experiments")
    if types.filter(model=new[0]).exists() or not types.filter(model=old[0]).update(model=new[0]):
        return  # a fresh database: Django makes the rows after the last migration
    permissions = apps.get_model("auth", "Permission").objects.using(alias)
    of_model = permissions.filter(content_type=types.get(model=new[0]))
    for action in ACTIONS:
        of_model.filter(codename=f"{action}_{old[0]}").update(
            codename=f"{action}_{new[0]}", name=f"Can {action} {new[1]}"
        )


def _group(related_name: str) -> models.ForeignKey:
    return models.ForeignKey(
        on_delete=django.db.models.deletion.CASCADE, related_name=related_name, to="experiments.group"
    )


class Migration(migrations.Migration):
    dependencies = [
        ("experiments", "0015_identity"),
        ("auth", "0012_alter_user_first_name_max_length"),
        ("contenttypes", "0002_remove_content_type_name"),
    ]

    operations = [
        migrations.RunPython(forwards, backwards),  # not inside the next one: `sqlmigrate` would run it
        migrations.SeparateDatabaseAndState(
            state_operations=[
                *(migrations.RenameModel(old, new) for old, (new, *_) in RENAMED.items()),
                *(migrations.AlterModelTable(new, f"experiments_{old.lower()}") for old, (new, *_) in RENAMED.items()),
                migrations.AlterField("archivedblock", "group", _group("archived_blocks")),
                migrations.AlterField("stepindex", "group", _group("step_indexes")),
                migrations.RenameField("leaderlease", "beat", "renewed"),
                migrations.AlterField("leaderlease", "renewed", models.DateTimeField(db_column="beat")),
                migrations.RenameField("group", "parcelled", "archived"),
                migrations.AlterField(
                    "group",
                    "archived",
                    models.BigIntegerField(
                        db_column="parcelled",
                        default=0,
                        help_text="how many sealed rows were archived, or found too small to be",
                    ),
                ),
                # Help texts, which no database knows.
                migrations.AlterField(
                    "group",
                    "thin_done",
                    models.CharField(blank=True, default="", help_text="the retention rule applied", max_length=250),
                ),
                migrations.AlterField(
                    "lane", "used_at", models.DateTimeField(help_text="when `used` was computed", null=True)
                ),
                migrations.AlterField(
                    "question", "request", models.JSONField(help_text="experiments.spec.QuestionSpec")
                ),
                migrations.AlterField(
                    "question", "problem", models.TextField(blank=True, help_text="why there is no answer")
                ),
                migrations.AlterField(
                    "worker",
                    "stopped",
                    models.DateTimeField(blank=True, help_text="when it stopped; null while it works", null=True),
                ),
                migrations.AlterField(
                    "worker",
                    "backlog",
                    models.BigIntegerField(
                        default=0, help_text="bytes of its trainers' messages that are not stored yet"
                    ),
                ),
                migrations.AlterField(
                    "run",
                    "lease_until",
                    models.DateTimeField(help_text="until when the holder has the run, in database time", null=True),
                ),
                migrations.AlterField(
                    "attempt",
                    "info",
                    models.JSONField(
                        default=dict, help_text="parameters, sites, versions, as the trainer reported them"
                    ),
                ),
            ],
        ),
    ]
