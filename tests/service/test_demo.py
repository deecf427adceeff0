"""What `make run` submits to an empty database."""

from __future__ import annotations

import pytest

from attnservice.local import prepare
from experiments.models import Experiment, Run


@pytest.mark.django_db
def test_the_quick_demo_is_queued_before_the_long_one_and_only_once() -> None:
    prepare.people()
    assert prepare.submit_demos() == ["Why Q is needed", "sam3-lite on handwritten digits"]
    first, second = Experiment.objects.order_by("pk")
    assert (first.preset, second.preset) == ("why-q", "sam3-lite-digits")
    assert {run.params["model.attention.variant"] for run in first.runs.all()} >= {"full", "const_q"}
    order = list(Run.objects.ready("cpu").values_list("experiment_id", flat=True))
    assert order == sorted(order)
    assert sum(run.steps for run in first.runs.all()) <= 3000  # about a minute of pointer steps
    assert prepare.submit_demos() == []
    assert Experiment.objects.count() == 2
