import experiments.models.fields
from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [
        ("experiments", "0007_lanes"),
    ]

    operations = [
        migrations.AlterField(
            model_name="experiment",
            name="matrix",
            field=experiments.models.fields.OrderedJSON(default=dict, help_text="dotted path → list of values"),
        ),
        migrations.AlterField(
            model_name="experiment",
            name="spec",
            field=experiments.models.fields.OrderedJSON(help_text="the base spec, resolved, before the matrix"),
        ),
        migrations.AlterField(
            model_name="run",
            name="params",
            field=experiments.models.fields.OrderedJSON(
                default=dict, help_text="what the matrix chose: dotted path → value"
            ),
        ),
        migrations.AlterField(
            model_name="run",
            name="spec",
            field=experiments.models.fields.OrderedJSON(),
        ),
    ]
