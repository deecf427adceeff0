"""On PostgreSQL keep the store's blobs as they are: they are compressed already, so pglz would only cost time."""

from django.db import migrations


def keep_blobs_as_they_are(apps, schema_editor):
    if schema_editor.connection.vendor != "postgresql":
        return
    columns = {"Frame": ["data"], "Block": ["summary", "data"], "Clock": ["data"], "Group": ["stats"]}
    for model, names in columns.items():
        table = apps.get_model("experiments", model)._meta.db_table
        for name in names:
            schema_editor.execute(f'ALTER TABLE "{table}" ALTER COLUMN "{name}" SET STORAGE EXTERNAL')


class Migration(migrations.Migration):
    dependencies = [("experiments", "0002_sealed")]
    operations = [migrations.RunPython(keep_blobs_as_they_are, migrations.RunPython.noop)]
